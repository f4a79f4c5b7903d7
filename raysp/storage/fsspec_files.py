# ruff: noqa: D102 (methods of all classes are those of PlainFiles)
"""Requests to file systems of fsspec, with conditions on a file's version where the service has them.

gcsfs and adlfs contribute their options, credentials and connections. Their methods lack the conditions, so requests to
Google Cloud Storage go by gcsfs's door for requests, and those to Azure by Azure's own client: a file is created
where none is and replaced over the version that is there, and a reader asks for the version that it opened. Both
repeat a request up to six times. Other file systems, of which only memory is written to, are used by fsspec's methods.
"""

import io
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from raysp import bounds
from raysp.storage.store import part_of, size_of

T = TypeVar("T")

MARK = "raysp_write"
"""Name of the metadata that identifies one write, so that a write whose response was lost recognises its own file."""
PAGE = 1000
CONNECT_SECONDS = 10
READ_SECONDS = 30
"""Maximum seconds without a byte of a response or its body."""
ONE_REQUEST_BYTES = 8 * 1024 * 1024
"""Larger files go up in parts, and the last request has the condition."""
PART_BYTES = 32 * 1024 * 1024  # a multiple of 256 KiB, as Google demands
PARTS_AT_ONCE = 4
AZURE_RETRIES: Mapping[str, Any] = {
    **{"initial_backoff": 0, "increment_base": 2, "random_jitter_range": 1},
    **dict.fromkeys(("retry_total", "retry_connect", "retry_read", "retry_status"), 5),
}
"""Seconds between attempts: 0-1, 1-3, 3-5, 7-9, 15-17. Azure's own begin with 15."""
_OF_COMMIT = re.compile(r"hf://(?:datasets/|spaces/)?[^/@]+/[^/@]+@[0-9a-f]{40}(?:/|$)")
"""A folder of the Hugging Face hub at a commit, whose files never change."""
_BINARY = "application/octet-stream"
_IS_LIMITED = "raysp_is_limited"
"""Attribute of a file system of adlfs whose client has the limits above."""

Facts = Mapping[str, Any]
"""Facts of a file as its service returns them: `size`, a version, a time."""


class ReplacedError(Exception):
    """A file of another version than the one that was opened."""


class NoContainerError(Exception):
    """A bucket or container that does not exist."""


class ForgottenError(Exception):
    """An upload that the service no longer knows: it was completed, or it has expired."""


class PlainFiles:
    """A file system of fsspec without conditions, whose existence is checked before a write.

    Places are paths of the file system, here as in the other classes: bucket or container, then the key.

    Args:
        url: url of the folder.
        options: options of the file system.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        import fsspec

        scheme = url.partition("://")[0].lower()
        self._files: Any = fsspec.filesystem(scheme, **options)
        self._is_constant = bool(_OF_COMMIT.match(url))
        self._reading = {"cache_type": "none"} if scheme == "hf" else {}  # else each range is read 5 MB ahead

    def root(self, url: str) -> str:
        """Return the place of a url."""
        return str(self._files._strip_protocol(url)).rstrip("/")

    def list(self, prefix: str) -> Iterator[tuple[str, Facts]]:
        """Yield place and facts of the files whose place begins with `prefix`, sorted by place."""
        self._refresh()
        try:
            listed = self._files.find(prefix.rpartition("/")[0], detail=True)
        except FileNotFoundError:
            return
        yield from ((place, listed[place]) for place in sorted(listed) if place.startswith(prefix))

    def facts(self, place: str) -> Facts | None:
        """Return the facts of a file, or None if it does not exist."""
        self._refresh()
        try:
            facts: Facts = self._files.info(place)
        except FileNotFoundError:
            return None
        return facts if facts["type"] == "file" else None

    def fetch(self, place: str, first: int, last: int, of: Facts) -> bytes:
        """Return the bytes `first <= i < last` of a file. The other classes raise ReplacedError for another version."""
        return bytes(self._files.cat_file(place, start=first, end=last, **self._reading))

    def read(self, place: str) -> bytes:
        """Return a whole file, read in parts, since a server may announce no size."""
        with self._files.open(place, "rb") as file:
            return bounds.read(file, bounds.MOST_TABLE_BYTES)

    def write(self, place: str, body: bytes | Path, mark: str, *, new: bool, over: Facts | None) -> Facts:
        """Write a file in one step, and return the facts of what was written.

        Raises:
            FileExistsError: nothing was written, since `new` is set and the file exists, or it is not of version
                `over`. A request that was repeated may have met its own file, which has the mark.
        """
        with _writing:
            existing = self.facts(place)
            if existing is not None if new else over is not None and existing != over:
                raise FileExistsError(place)
            self._files.pipe_file(place, body if isinstance(body, bytes) else body.read_bytes())
            written: Facts = self._files.info(place)
            return written

    def delete(self, place: str) -> None:
        """Remove a file. Raises FileNotFoundError."""
        self._files.rm_file(place)

    def _refresh(self) -> None:
        """Forget the listings that the file system keeps, unless files here never change."""
        if not self._is_constant:
            self._files.invalidate_cache()


_writing = threading.Lock()  # memory:// is shared by threads only


class GoogleFiles:
    """Buckets of Google Cloud Storage by its JSON API, with conditions on generations; see `PlainFiles`."""

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        # Its subclass gcsfs.GCSFileSystem asks another API, by gRPC, of what kind each bucket is.
        from aiohttp import ClientTimeout
        from gcsfs.core import GCSFileSystem

        # gcsfs logs a failed request with all that the store answered, which may repeat the token of the request.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        self._files: Any = GCSFileSystem(**{"requests_timeout": timeout, **options})

    def root(self, url: str) -> str:
        return url.partition("://")[2].rstrip("/")

    def list(self, prefix: str) -> Iterator[tuple[str, Facts]]:
        bucket, _, key = prefix.partition("/")
        page: Mapping[str, Any] = {"nextPageToken": None}
        while "nextPageToken" in page:
            token = page["nextPageToken"]
            with _container(bucket):
                ask = {"prefix": key, "maxResults": PAGE, "pageToken": token}
                page = self._files.call("GET", "b/{}/o", bucket, json_out=True, **ask)
            for facts in page.get("items", ()):
                if not facts["name"].endswith("/"):  # placeholders of folders, written by some tools
                    yield f"{bucket}/{facts['name']}", _sized(facts)

    def facts(self, place: str) -> Facts | None:
        bucket, _, key = place.partition("/")
        try:
            return _sized(self._files.call("GET", "b/{}/o/{}", bucket, key, json_out=True))
        except FileNotFoundError:
            return None

    def fetch(self, place: str, first: int, last: int, of: Facts) -> bytes:
        try:
            return self._media(place, first, last, generation=of["generation"])
        except FileNotFoundError:
            raise ReplacedError from None

    def read(self, place: str) -> bytes:
        return _whole(lambda last: self._media(place, 0, last))

    def _media(self, place: str, first: int, last: int, **more: object) -> bytes:
        bucket, _, key = place.partition("/")
        part = {"Range": f"bytes={first}-{last - 1}"}
        return bytes(self._files.call("GET", "b/{}/o/{}", bucket, key, alt="media", headers=part, **more)[1])

    def write(self, place: str, body: bytes | Path, mark: str, *, new: bool, over: Facts | None) -> Facts:
        bucket, _, key = place.partition("/")
        condition = {"ifGenerationMatch": over["generation"] if over else "0"} if new or over else {}
        about = {"name": key, "metadata": {MARK: mark}}
        url, num_bytes = f"{self._files.base.replace('/storage/v1/', '/upload/storage/v1/')}b/{{}}/o", size_of(body)
        with _container(bucket):
            if num_bytes <= ONE_REQUEST_BYTES:
                both = {"uploadType": "multipart", **_related(about, part_of(body, 0, num_bytes), mark)}
                return _sized(self._files.call("POST", url, bucket, json_out=True, **both, **condition))
            begin = {"uploadType": "resumable", "json": about, "headers": {"X-Upload-Content-Type": _BINARY}}
            session, _ = self._files.call("POST", url, bucket, **begin, **condition)
        return _sized(self._send_parts(session["Location"], body, num_bytes))

    def _send_parts(self, location: str, body: bytes | Path, num_bytes: int) -> Any:  # noqa: ANN401
        """Send a file to a resumable upload, which ends by itself after a week where it is left."""
        from fsspec.asyn import sync
        from gcsfs.core import upload_chunk

        try:
            for first in range(0, num_bytes, PART_BYTES):
                part = part_of(body, first, PART_BYTES)
                sent = sync(self._files.loop, upload_chunk, self._files, location, part, first, num_bytes, _BINARY)
        except FileNotFoundError as error:
            raise ForgottenError(f"the upload is no longer known: {error}") from None
        return sent

    def delete(self, place: str) -> None:
        bucket, _, key = place.partition("/")
        self._files.call("DELETE", "b/{}/o/{}", bucket, key)


class AzureFiles:
    """Containers of a storage account by Azure's client, with conditions on etags; see `PlainFiles`.

    The url may name the account: `abfs://container@account.dfs.core.windows.net/folder`.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        from adlfs import AzureBlobFileSystem
        from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry

        of_url = AzureBlobFileSystem._get_kwargs_from_urls(url)
        self._files: Any = AzureBlobFileSystem(**{**of_url, **options})
        made = self._files.service_client
        if not hasattr(self._files, _IS_LIMITED):  # file systems of equal options are one
            # adlfs closes the client that it has at the end of the process.
            self._files.service_client = BlobServiceClient(
                made.url,
                made.credential,
                retry_policy=ExponentialRetry(**AZURE_RETRIES),
                connection_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_single_put_size=ONE_REQUEST_BYTES,
                max_block_size=PART_BYTES,
            )
            setattr(self._files, _IS_LIMITED, True)
        self._blobs: BlobServiceClient = self._files.service_client

    def root(self, url: str) -> str:
        container, _, folder = url.partition("://")[2].partition("/")
        return f"{container.partition('@')[0]}/{folder}".rstrip("/")

    def list(self, prefix: str) -> Iterator[tuple[str, Facts]]:
        container, _, begins = prefix.partition("/")
        folder = self._blobs.get_container_client(container)
        blobs = folder.list_blobs(begins, include=["metadata"], results_per_page=PAGE)
        pages: AsyncIterator[AsyncIterator[Any]] = blobs.by_page()

        async def next_page() -> list[Any]:
            return [blob async for blob in await anext(pages)]

        while True:
            try:
                blobs_of_page = self._call(next_page)
            except StopAsyncIteration:
                return
            for blob in blobs_of_page:
                if _is_file(blob):
                    yield f"{container}/{blob.name}", _facts(blob, blob.size)

    def facts(self, place: str) -> Facts | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            blob = self._call(self._blob(place).get_blob_properties)
        except ResourceNotFoundError:
            return None
        return _facts(blob, blob.size) if _is_file(blob) else None

    def fetch(self, place: str, first: int, last: int, of: Facts) -> bytes:
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        try:
            return self._content(place, first, last, **_if_unchanged(of))
        except (ResourceModifiedError, ResourceNotFoundError):
            raise ReplacedError from None

    def read(self, place: str) -> bytes:
        return _whole(lambda last: self._content(place, 0, last))

    def _content(self, place: str, first: int, last: int, **more: Any) -> bytes:  # noqa: ANN401
        async def work() -> bytes:
            stream = await self._blob(place).download_blob(first, last - first, **more)
            data: bytes = await stream.readall()
            return data

        return self._call(work)

    def write(self, place: str, body: bytes | Path, mark: str, *, new: bool, over: Facts | None) -> Facts:
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        how = {"metadata": {MARK: mark}, "overwrite": not new, **(_if_unchanged(over) if over else {})}

        async def work() -> Mapping[str, Any]:
            # Blocks of a large file have ids of this upload alone: another one of the same name cannot mix with it.
            with io.BytesIO(body) if isinstance(body, bytes) else body.open("rb") as file:
                sent: Mapping[str, Any] = await self._blob(place).upload_blob(
                    file, length=size_of(body), max_concurrency=PARTS_AT_ONCE, **how
                )
            return sent

        try:
            return _facts(self._call(work), size_of(body))
        except (ResourceExistsError, ResourceModifiedError):
            raise FileExistsError(place) from None

    def delete(self, place: str) -> None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            self._call(self._blob(place).delete_blob)
        except ResourceNotFoundError as error:
            raise FileNotFoundError(place) from error

    def _blob(self, place: str) -> Any:  # noqa: ANN401 - many overloads
        container, _, name = place.partition("/")
        return self._blobs.get_blob_client(container, name)

    def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        from fsspec.asyn import sync

        try:
            result: T = sync(self._files.loop, work)
        except Exception as error:
            if getattr(error, "error_code", None) == "ContainerNotFound":
                raise NoContainerError("there is no such container") from None
            raise
        return result


Files: TypeAlias = PlainFiles | GoogleFiles | AzureFiles


@contextmanager
def _container(bucket: str) -> Iterator[None]:
    """Raise NoContainerError for a request whose bucket does not exist."""
    try:
        yield
    except FileNotFoundError:
        raise NoContainerError(f"there is no bucket {bucket!r}") from None


def _sized(facts: Mapping[str, Any]) -> Facts:
    return {**facts, "size": int(facts["size"])}


def _facts(about: Any, size: int) -> Facts:  # noqa: ANN401 - properties of a blob, or the answer to an upload
    # Listings return etags without the quotes that conditions need.
    etag = f'"{about["etag"].strip(chr(34))}"'
    return {"size": size, "etag": etag, "last_modified": about["last_modified"], "metadata": about.get("metadata")}


def _is_file(blob: Any) -> bool:  # noqa: ANN401 - properties of a blob
    """Return whether a blob is a file and not the placeholder of a folder."""
    return not blob.name.endswith("/") and (blob.metadata or {}).get("hdi_isfolder") != "true"


def _if_unchanged(of: Facts) -> dict[str, object]:
    from azure.core import MatchConditions

    return {"etag": of["etag"], "match_condition": MatchConditions.IfNotModified}


def _whole(fetch_to: Callable[[int], bytes]) -> bytes:
    """Return a whole file by one request, which asks for one byte more than may be read."""
    most = bounds.MOST_TABLE_BYTES
    try:
        data = fetch_to(most + 1)
    except Exception as error:
        if 416 not in (getattr(error, "code", None), getattr(error, "status_code", None)):
            raise
        return b""  # an empty file has no range
    if len(data) > most:
        raise bounds.TooLargeError(f"has more than {most:,} bytes, the most allowed")
    return data


def _related(about: Mapping[str, object], data: bytes, boundary: str) -> dict[str, object]:
    """Return body and headers of a request that carries a file and its metadata."""
    begin = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n"
    middle = f"--{boundary}\r\nContent-Type: {_BINARY}\r\n\r\n"
    body = b"".join((begin.encode(), middle.encode(), data, f"\r\n--{boundary}--\r\n".encode()))
    return {"data": body, "headers": {"Content-Type": f'multipart/related; boundary="{boundary}"'}}
