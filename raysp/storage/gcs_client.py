"""Requests to Google Cloud Storage: the credentials and retries of gcsfs, its JSON API, and conditions on generations.

A file is created with `ifGenerationMatch=0` and replaced with the generation that is there; a reader asks for the
generation that it opened. gcsfs repeats a request up to six times.
"""

import json
import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from raysp import bounds
from raysp.storage.fsspec_client import MARK, Facts, NoContainerError, ReplacedError, part_of, size_of
from raysp.storage.options import resolve

CONNECT_SECONDS = 10
READ_SECONDS = 30
"""Maximum seconds without a byte of a response or its body."""
ONE_REQUEST_BYTES = 8 * 1024 * 1024
"""Larger files go up in chunks of a resumable upload, which ends with the condition it began with."""
CHUNK_BYTES = 32 * 1024 * 1024  # a multiple of 256 KiB, as the API demands
PAGE = 1000
_BOUNDARY = "raysp-86d1e9b54f6e4a51b1c1f7b4cbe1d0a2"
_BINARY = "application/octet-stream"


class GcsClient:
    """Requests to the buckets that some options of gcsfs lead to.

    Args:
        options: options of `gcsfs.GCSFileSystem`.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        # Its subclass gcsfs.GCSFileSystem asks another API, by gRPC, of what kind each bucket is.
        from aiohttp import ClientTimeout
        from gcsfs.core import GCSFileSystem

        # gcsfs logs a failed request with all that the store answered, which may repeat the token of the request.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        self._files: Any = GCSFileSystem(**{"requests_timeout": timeout, **resolve(options)})

    def root(self, url: str) -> str:
        """Return the place of a url."""
        return url.partition("://")[2].rstrip("/")

    def list(self, prefix: str) -> Iterator[tuple[str, Facts]]:
        """Yield place and facts of the files whose place begins with `prefix`, sorted by place."""
        bucket, _, key = _parts(prefix)
        page: Mapping[str, Any] = {"nextPageToken": None}
        while "nextPageToken" in page:
            page = self._page(bucket, key, page["nextPageToken"])
            for found in page.get("items", ()):
                if not found["name"].endswith("/"):  # placeholders of folders, written by some tools
                    yield f"{bucket}/{found['name']}", _facts(found)

    def _page(self, bucket: str, prefix: str, token: str | None) -> Mapping[str, Any]:
        ask = {"prefix": prefix, "maxResults": PAGE, "pageToken": token}
        with _container(bucket):
            page: Mapping[str, Any] = self._files.call("GET", "b/{}/o", bucket, json_out=True, **ask)
        return page

    def facts(self, place: str) -> Facts | None:
        """Return the facts of a file, or None if it does not exist."""
        bucket, _, key = _parts(place)
        try:
            return _facts(self._files.call("GET", "b/{}/o/{}", bucket, key, json_out=True))
        except FileNotFoundError:
            return None

    def fetch(self, place: str, first: int, last: int, of: Facts) -> bytes:
        """Return the bytes `first <= i < last` of the generation of the facts `of`."""
        try:
            return self._media(place, first, last, generation=of["generation"])
        except FileNotFoundError:
            raise ReplacedError from None

    def read(self, place: str) -> bytes:
        """Return a whole file, by one request unless it is empty."""
        most = bounds.MOST_TABLE_BYTES
        try:
            # One byte more than allowed: a file that is too large shows without a request for its size.
            data = self._media(place, 0, most + 1)
        except Exception as error:
            if getattr(error, "code", None) != 416:
                raise
            return b""
        if len(data) > most:
            raise bounds.TooLargeError(f"has more than {most:,} bytes, the most allowed")
        return data

    def _media(self, place: str, first: int, last: int, **more: object) -> bytes:
        bucket, _, key = _parts(place)
        part = {"Range": f"bytes={first}-{last - 1}"}
        return bytes(self._files.call("GET", "b/{}/o/{}", bucket, key, alt="media", headers=part, **more)[1])

    def write(self, place: str, body: bytes | Path, *, new: bool = False, over: Facts | None = None) -> Facts | None:
        """Write a file in one step, under the condition that it is new or that `over` is its generation."""
        condition = {"ifGenerationMatch": "0"} if new else {"ifGenerationMatch": over["generation"]} if over else {}
        mark = uuid.uuid4().hex
        try:
            return _facts(self._send(place, body, {MARK: mark}, condition))
        except (FileExistsError, _LostError) as error:
            # A request whose response was lost is repeated, and then meets its own file.
            found = self.facts(place)
            if found is not None and found.get("metadata", {}).get(MARK) == mark:
                return found
            if isinstance(error, _LostError):
                raise
            return None

    def _send(self, place: str, body: bytes | Path, metadata: Facts, condition: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Upload a file, and return its resource."""
        bucket, _, key = _parts(place)
        num_bytes = size_of(body)
        about: dict[str, object] = {"name": key, "metadata": metadata}
        url = f"{self._files.base.replace('/storage/v1/', '/upload/storage/v1/')}b/{{}}/o"
        with _container(bucket):
            if num_bytes <= ONE_REQUEST_BYTES:
                data = _related(about, part_of(body, 0, num_bytes))
                return self._files.call("POST", url, bucket, uploadType="multipart", json_out=True, **data, **condition)
            begin = {"json": about, "headers": {"X-Upload-Content-Type": _BINARY}}
            session, _ = self._files.call("POST", url, bucket, uploadType="resumable", **begin, **condition)
        return self._send_chunks(session["Location"], body, num_bytes)

    def _send_chunks(self, location: str, body: bytes | Path, num_bytes: int) -> Any:  # noqa: ANN401
        from fsspec.asyn import sync
        from gcsfs.core import upload_chunk

        try:
            for first in range(0, num_bytes, CHUNK_BYTES):
                chunk = part_of(body, first, CHUNK_BYTES)
                sent = sync(self._files.loop, upload_chunk, self._files, location, chunk, first, num_bytes, _BINARY)
        except FileNotFoundError as error:
            raise _LostError(f"the upload is no longer known: {error}") from None
        except BaseException:
            with suppress(Exception):  # an upload that is left ends by itself after a week
                self._files.call("DELETE", location)
            raise
        return sent

    def delete(self, place: str) -> None:
        """Remove a file. Raises FileNotFoundError."""
        bucket, _, key = _parts(place)
        self._files.call("DELETE", "b/{}/o/{}", bucket, key)


class _LostError(Exception):
    """An upload that the store no longer knows: it was completed, or it has expired."""


@contextmanager
def _container(bucket: str) -> Iterator[None]:
    """Raise NoContainerError for a request whose bucket does not exist."""
    try:
        yield
    except FileNotFoundError:
        raise NoContainerError(f"there is no bucket {bucket!r}") from None


def _parts(place: str) -> tuple[str, str, str]:
    return place.partition("/")


def _facts(found: Mapping[str, Any]) -> Facts:
    return {**found, "size": int(found["size"])}


def _related(about: Mapping[str, object], data: bytes) -> dict[str, object]:
    """Return body and headers of a request that carries a file and its metadata."""
    begin = f"--{_BOUNDARY}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(about)}\r\n"
    middle = f"--{_BOUNDARY}\r\nContent-Type: {_BINARY}\r\n\r\n"
    body = b"".join((begin.encode(), middle.encode(), data, f"\r\n--{_BOUNDARY}--\r\n".encode()))
    return {"data": body, "headers": {"Content-Type": f'multipart/related; boundary="{_BOUNDARY}"'}}
