"""Requests to Azure Blob Storage: the credentials of adlfs, Azure's own client, and conditions on etags.

A file is created with `If-None-Match: *` and replaced with the etag that is there; a reader asks for the etag that it
opened. Transient errors are retried here: Azure's client would wait 15 seconds before the second attempt.
"""

import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from raysp import bounds
from raysp.storage.fsspec_client import MARK, Facts, NoContainerError, ReplacedError, part_of, size_of
from raysp.storage.options import resolve

T = TypeVar("T")

ATTEMPTS = 6
FIRST_DELAY_SECONDS = 0.2
MAX_DELAY_SECONDS = 10.0
LIMITS: Mapping[str, object] = {"connection_timeout": 10, "read_timeout": 30, "retry_total": 0}
"""Seconds to connect and without a byte of a response; and no attempts of Azure's client."""
ONE_REQUEST_BYTES = 32 * 1024 * 1024
"""Larger files go up in blocks, whose commit has the condition."""
BLOCK_BYTES = 32 * 1024 * 1024
BLOCKS_AT_ONCE = 4
PAGE = 1000


class AzureClient:
    """Requests to the containers of a storage account.

    Args:
        url: url of the folder, which may name the account: `abfs://container@account.dfs.core.windows.net/folder`.
        options: options of `adlfs.AzureBlobFileSystem`.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        from adlfs import AzureBlobFileSystem

        of_url = AzureBlobFileSystem._get_kwargs_from_urls(url)
        self._files: Any = AzureBlobFileSystem(**{**of_url, **resolve(options)})

    def root(self, url: str) -> str:
        """Return the place of a url."""
        container, _, folder = url.partition("://")[2].partition("/")
        return f"{container.partition('@')[0]}/{folder}".rstrip("/")

    def list(self, prefix: str) -> Iterator[tuple[str, Facts]]:
        """Yield place and facts of the files whose place begins with `prefix`, sorted by place."""
        container, _, begins = prefix.partition("/")
        token: str | None = ""
        while token is not None:
            found, token = self._page(container, begins, token or None)
            for blob in found:
                if _is_file(blob):
                    yield f"{container}/{blob.name}", _facts(blob)

    def _page(self, container: str, begins: str, token: str | None) -> tuple[Sequence[Any], str | None]:
        folder = self._files.service_client.get_container_client(container)

        async def work() -> tuple[Sequence[Any], str | None]:
            blobs = folder.list_blobs(begins, include=["metadata"], results_per_page=PAGE, **LIMITS)
            pages: AsyncIterator[AsyncIterator[Any]] = blobs.by_page(continuation_token=token)
            found = [blob async for blob in await anext(pages)]
            return found, pages.continuation_token or None  # type: ignore[attr-defined]

        return self._call(work)

    def facts(self, place: str) -> Facts | None:
        """Return the facts of a file, or None if it does not exist."""
        found = self._properties(place)
        return _facts(found) if found is not None and _is_file(found) else None

    def _properties(self, place: str) -> Any:  # noqa: ANN401 - adlfs has no types
        from azure.core.exceptions import ResourceNotFoundError

        blob = self._blob(place)
        try:
            return self._call(lambda: blob.get_blob_properties(**LIMITS))
        except ResourceNotFoundError:
            return None

    def fetch(self, place: str, first: int, last: int, of: Facts) -> bytes:
        """Return the bytes `first <= i < last` of the version with the etag of the facts `of`."""
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        try:
            return self._content(place, first, last, **_if_unchanged(of))
        except (ResourceModifiedError, ResourceNotFoundError):
            raise ReplacedError from None

    def read(self, place: str) -> bytes:
        """Return a whole file, of which no more is requested than may be read."""
        most = bounds.MOST_TABLE_BYTES
        try:
            # One byte more than allowed: a file that is too large shows without a request for its size.
            data = self._content(place, 0, most + 1)
        except Exception as error:
            if getattr(error, "status_code", None) != 416:
                raise
            return b""  # an empty file has no range
        if len(data) > most:
            raise bounds.TooLargeError(f"has more than {most:,} bytes, the most allowed")
        return data

    def _content(self, place: str, first: int, last: int, **more: object) -> bytes:
        blob = self._blob(place)

        async def work() -> bytes:
            stream = await blob.download_blob(first, last - first, **LIMITS, **more)
            data: bytes = await stream.readall()
            return data

        return self._call(work)

    def write(self, place: str, body: bytes | Path, *, new: bool = False, over: Facts | None = None) -> Facts | None:
        """Write a file in one step, under the condition that it is new or that `over` is its version."""
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        mark = uuid.uuid4().hex
        try:
            sent = self._send(place, body, {"metadata": {MARK: mark}, **_condition(new, over), **LIMITS})
        except (ResourceExistsError, ResourceModifiedError):
            # A request whose response was lost is repeated, and then meets its own file.
            found = self._properties(place)
            return _facts(found) if found is not None and found.metadata.get(MARK) == mark else None
        return _facts_of(size_of(body), sent["etag"], sent["last_modified"])

    def _send(self, place: str, body: bytes | Path, more: Mapping[str, Any]) -> Mapping[str, Any]:
        """Upload a file, and return the headers of the response."""
        blob, num_bytes = self._blob(place), size_of(body)
        if num_bytes <= ONE_REQUEST_BYTES:
            data = part_of(body, 0, num_bytes)
            # overwrite=True: the client adds no condition of its own to the one in `more`.
            return self._call(lambda: blob.upload_blob(data, overwrite=True, **more))
        from azure.storage.blob import BlobBlock

        # Uploads of one name share their blocks until one is committed, so ids are of this upload alone.
        send = partial(self._stage, blob, body, uuid.uuid4().hex)
        with ThreadPoolExecutor(BLOCKS_AT_ONCE) as pool:  # blocks that are not committed are removed after a week
            ids = list(pool.map(send, range(0, num_bytes, BLOCK_BYTES)))
        return self._call(lambda: blob.commit_block_list([BlobBlock(one) for one in ids], **more))

    def _stage(self, blob: Any, body: bytes | Path, upload: str, first: int) -> str:  # noqa: ANN401 - no types
        """Send one block, which is not visible before all are committed, and return its id."""
        data, name = part_of(body, first, BLOCK_BYTES), f"{upload}{first:016x}"
        self._call(lambda: blob.stage_block(name, data, **LIMITS))
        return name

    def delete(self, place: str) -> None:
        """Remove a file. Raises FileNotFoundError."""
        from azure.core.exceptions import ResourceNotFoundError

        blob = self._blob(place)
        try:
            self._call(lambda: blob.delete_blob(**LIMITS))
        except ResourceNotFoundError as error:
            raise FileNotFoundError(place) from error

    def _blob(self, place: str) -> Any:  # noqa: ANN401 - adlfs has no types
        container, _, name = place.partition("/")
        return self._files.service_client.get_blob_client(container, name)

    def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a request, which is tried `ATTEMPTS` times."""
        from fsspec.asyn import sync

        for attempt in range(1, ATTEMPTS + 1):
            try:
                result: T = sync(self._files.loop, work)
                return result
            except Exception as error:
                if getattr(error, "error_code", None) == "ContainerNotFound":
                    raise NoContainerError("there is no such container") from None
                if attempt == ATTEMPTS or not _passes(error):
                    raise
            _pause(attempt)
        raise AssertionError  # not reached


def _passes(error: Exception) -> bool:
    """Return whether an error is transient."""
    from azure.core.exceptions import IncompleteReadError, ServiceRequestError, ServiceResponseError

    network = ServiceRequestError | ServiceResponseError | IncompleteReadError | ConnectionError | TimeoutError
    return isinstance(error, network) or getattr(error, "status_code", None) in (408, 429, 500, 502, 503, 504)


def _pause(attempt: int) -> None:
    longest = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (attempt - 1))
    time.sleep(random.uniform(longest / 2, longest))


def _condition(new: bool, over: Facts | None) -> Mapping[str, object]:
    from azure.core import MatchConditions

    return {"match_condition": MatchConditions.IfMissing} if new else {} if over is None else _if_unchanged(over)


def _if_unchanged(of: Facts) -> dict[str, object]:
    from azure.core import MatchConditions

    return {"etag": of["etag"], "match_condition": MatchConditions.IfNotModified}


def _facts(blob: Any) -> Facts:  # noqa: ANN401 - adlfs has no types
    return _facts_of(blob.size, blob.etag, blob.last_modified)


def _facts_of(size: int, etag: str, last_modified: datetime) -> Facts:
    # Listings return etags without the quotes that conditions need.
    return {"size": size, "etag": f'"{etag.strip(chr(34))}"', "last_modified": last_modified}


def _is_file(blob: Any) -> bool:  # noqa: ANN401 - adlfs has no types
    """Return whether a blob is a file and not the placeholder of a folder."""
    return not blob.name.endswith("/") and (blob.metadata or {}).get("hdi_isfolder") != "true"
