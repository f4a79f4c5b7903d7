"""A bucket of millions of objects that takes no room, behind the calls of boto3 that raysp makes.

Objects of a series have names made from their numbers and equal content; other objects are files of a folder. Each call
is counted by its kind, as an object store charges it. `SyntheticBucket.used` replaces the client of `raysp.storage`, so
that everything above it is the code of a run.
"""

# ruff: noqa: N803 - arguments have the names of boto3

import io
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import islice, takewhile
from pathlib import Path
from threading import Lock
from typing import Any

from botocore.exceptions import ClientError

PAGE = 1000
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Series:
    """Objects of equal content, whose names sort by their numbers."""

    name: Callable[[int], str]
    number_of: Callable[[str], int | None]
    """Inverse of `name`; None for other names."""
    count: int
    data: bytes

    def holds(self, name: str) -> bool:
        """Return whether an object is one of them."""
        number = self.number_of(name)
        return number is not None and number < self.count and self.name(number) == name

    def after(self, name: str) -> Iterator[str]:
        """Yield the names from one on."""
        first = bisect_left(range(self.count), name, key=self.name)
        return map(self.name, range(first, self.count))


class SyntheticBucket:
    """The calls of a boto3 client, over one bucket.

    Args:
        folder: folder for the objects that are written.
        latency: seconds that each call takes.
    """

    def __init__(self, folder: Path, latency: float = 0.0) -> None:
        self.series: list[Series] = []
        self.requests: Counter[str] = Counter()
        self._latency = latency
        self._folder = folder
        self._written = 0
        self._objects: dict[str, tuple[int, int]] = {}
        """File and size of each object."""
        self._names: list[str] = []
        self._lock = Lock()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let raysp use this bucket as its object store."""
        from raysp.storage import s3_client

        made, s3_client._make = s3_client._make, lambda _: (self, ())  # type: ignore[assignment]
        s3_client._clients.clear()
        try:
            yield
        finally:
            s3_client._make = made
            s3_client._clients.clear()

    def list_objects_v2(
        self, Bucket: str, Prefix: str = "", MaxKeys: int = PAGE, ContinuationToken: str = ""
    ) -> dict[str, Any]:
        """Return a page of names."""
        self._count("LIST")
        first = max(Prefix, ContinuationToken)
        with self._lock:
            own = self._names[bisect_left(self._names, first) :][: MaxKeys + 1]
        names = merge(own, *(series.after(first) for series in self.series))
        page = [*islice(takewhile(lambda name: name.startswith(Prefix), names), MaxKeys + 1)]
        found = {"Contents": [{"Key": name, **self._facts(name)} for name in page[:MaxKeys]], "IsTruncated": False}
        return {**found, "IsTruncated": True, "NextContinuationToken": page[-1]} if len(page) > MaxKeys else found

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        """Return the size and version of an object."""
        self._count("HEAD")
        facts = self._facts(Key, "404")
        return {"ContentLength": facts["Size"], **facts, "Metadata": {}}

    def get_object(self, Bucket: str, Key: str, Range: str = "") -> dict[str, Any]:
        """Return an object or a range of it."""
        self._count("GET")
        data = self._data(Key)
        start, _, end = Range.removeprefix("bytes=").partition("-")
        if Range and not data:
            raise _error("InvalidRange", 416)
        part = data if not Range else data[int(start) : int(end) + 1] if start else data[-int(end) :]
        facts = {"ContentLength": len(part), "Body": io.BytesIO(part), "ETag": self._facts(Key)["ETag"]}
        return {**facts, "ContentRange": f"bytes */{len(data)}"} if Range else facts

    def put_object(self, Bucket: str, Key: str, Body: Any, IfNoneMatch: str = "", **_: object) -> dict[str, str]:
        """Write an object, unless it exists and that was excluded, and return its version."""
        self._count("PUT")
        data = Body if isinstance(Body, bytes) else Body.read()
        with self._lock:
            exists = Key in self._objects or any(series.holds(Key) for series in self.series)
            if IfNoneMatch and exists:
                raise _error("PreconditionFailed", 412)
            if Key not in self._objects:
                insort(self._names, Key)
            self._written += 1
            number = self._written
            (self._folder / str(number)).write_bytes(data)
            self._objects[Key] = number, len(data)
        return {"ETag": self._facts(Key)["ETag"]}

    def delete_object(self, Bucket: str, Key: str) -> None:
        """Remove an object."""
        self._count("DELETE")
        with self._lock:
            if self._objects.pop(Key, None) is not None:
                del self._names[bisect_left(self._names, Key)]

    def list_multipart_uploads(self, **_: object) -> Mapping[str, Any]:
        """Return no uploads."""
        self._count("LIST")
        return {"Uploads": [], "IsTruncated": False, "ResponseMetadata": {"HTTPHeaders": {}}}

    def _count(self, kind: str) -> None:
        with self._lock:
            self.requests[kind] += 1
        if self._latency:
            time.sleep(self._latency)

    def _data(self, name: str, missing: str = "NoSuchKey") -> bytes:
        if (found := self._objects.get(name)) is not None:
            return (self._folder / str(found[0])).read_bytes()
        for series in self.series:
            if series.holds(name):
                return series.data
        raise _error(missing, 404)

    def _facts(self, name: str, missing: str = "NoSuchKey") -> dict[str, Any]:
        found = self._objects.get(name)
        size = found[1] if found else len(self._data(name, missing))
        return {"Size": size, "ETag": f'"{size:032x}"', "LastModified": WHEN}


def numbered(before: str, after: str, count: int, data: bytes) -> Series:
    """Return objects named by folder and number between two texts, a thousand in a folder."""

    def name(number: int) -> str:
        return f"{before.format(f'{number // 1000:04}')}{number:07}{after}"

    beginning = before.partition("{}")[0]

    def number_of(name: str) -> int | None:
        if not (name.startswith(beginning) and name.endswith(after)):
            return None
        digits = name[: len(name) - len(after)][-7:]
        return int(digits) if digits.isdecimal() else None

    return Series(name, number_of, count, data)


def _error(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "synthetic")
