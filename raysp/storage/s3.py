"""A store on an S3 bucket or a folder of one.

A label shard is committed by one conditional PUT. Larger files are uploaded in parts, but only where the store honours
the condition on completion as well. Some stores honour it on PUT only, so each is probed once per process before use.
Where a store honours neither, existence is checked before a write, with a warning.
"""

import base64
import hashlib
import io
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from raysp import bounds
from raysp.errors import StoreError
from raysp.storage.opened import Opened
from raysp.storage.ranged import Fetch, RangedFile, open_ranged
from raysp.storage.s3_client import S3Client, TruncatedError, code_of, connect
from raysp.storage.store import TMP, Entry, explain, inside, local_scratch, part_of, size_of

logger = logging.getLogger(__name__)
T = TypeVar("T")

MULTIPART_BYTES = 64 * 1024 * 1024
"""Larger files are uploaded in parts, several at once, where the completion can be conditional."""
PART_BYTES = 32 * 1024 * 1024
MAX_PARTS = 10_000
MAX_PUT_BYTES = 5 * 1024**3
PARTS_AT_ONCE = 4
UPLOADS = 3
TAIL_BYTES = 64 * 1024  # read on opening a file: the footers of most Parquet files and all staged files
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")
_MARK = "raysp-write"
_PUT, _MATCH, _COMPLETION = "PUT", "PUT over one version", "multipart completion"
_NEW = {"IfNoneMatch": "*"}
_EXISTS = ("PreconditionFailed", "412")
_MISSING = ("NoSuchKey", "404")
_CONDITION_UNKNOWN = ("NotImplemented", "501", "InvalidArgument", "InvalidRequest")

# By client, bucket and operation (_PUT, _MATCH, _COMPLETION): whether the store honours the condition.
_honoured: dict[tuple[S3Client, str, str], bool] = {}
_honoured_lock = threading.Lock()


class S3Store:
    """A bucket, or the keys under a folder of it.

    Args:
        url: `s3://bucket` or `s3://bucket/folder`.
        storage_options: options with the names of s3fs, see `s3_options.KNOWN_OPTIONS`.
    """

    def __init__(self, url: str, storage_options: Mapping[str, object] | None = None) -> None:
        self._bucket, _, folder = url.partition("://")[2].partition("/")
        folder = folder.rstrip("/")
        if not _BUCKET.fullmatch(self._bucket):
            raise StoreError(f"{url!r}: {self._bucket!r} is not the name of a bucket; write s3://bucket/folder")
        self._prefix = f"{folder}/" if folder else ""
        self.url = f"s3://{self._bucket}/{folder}".rstrip("/")
        self._options = dict(storage_options or {})
        self._client = connect(self._options)

    def __reduce__(self) -> tuple[type["S3Store"], tuple[str, Mapping[str, object]]]:
        """Pickle the url and the options, with references to the environment: another process connects by itself."""
        return type(self), (self.url, self._options)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the files whose path begins with `prefix`, at any depth, sorted by path; 1,000 per request."""
        token: dict[str, str] = {}
        begins = self._prefix + prefix
        while True:
            page = self._page(begins, **token)
            for facts in page.get("Contents", ()):
                if not facts["Key"].endswith("/"):  # placeholders of folders, written by some tools
                    yield _entry(facts["Key"].removeprefix(self._prefix), facts["Size"], facts)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def stat(self, path: str) -> Entry | None:
        """Return the entry of a file, or None if it does not exist."""
        key = self._key(path)
        try:
            facts = self._call(lambda s3: s3.head_object(Bucket=self._bucket, Key=key), "look at", path)
        except StoreError as error:
            if error.code in _MISSING:
                return None
            if error.code in ("400", "403"):  # the response to HEAD has no body with a reason
                first = self._page(key, MaxKeys=1).get("Contents", ())
                return next((_entry(path, facts["Size"], facts) for facts in first if facts["Key"] == key), None)
            raise
        return _entry(path, facts["ContentLength"], facts)

    def _page(self, prefix: str, **more: object) -> dict[str, Any]:
        return self._call(lambda s3: s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more), "list", "")

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        return self._get(path)[0]

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random access. One request returns its size, version and last bytes."""
        end, num_bytes, version = b"", 0, ""  # of an empty file, which has no last bytes
        with _ignored("InvalidRange"):
            end, num_bytes, version = self._get(path, f"-{TAIL_BYTES}", TAIL_BYTES)
        return open_ranged(num_bytes, self._fetch(path, version), end)

    def open_version(self, path: str, num_bytes: int) -> Opened | None:
        """Open a file by one request, which returns its size, version and first bytes. None if it does not exist."""
        try:
            head, total, version = self._get(path, f"0-{num_bytes - 1}", num_bytes)
        except StoreError as error:
            if error.code in _MISSING:
                return None
            if error.code != "InvalidRange":
                raise
            entry = self.stat(path)  # an empty file has no first bytes
            return Opened(entry, b"", RangedFile(0, self._fetch(path, ""))) if entry else None
        file = RangedFile(total, self._fetch(path, version), head=head)
        return Opened(Entry(path, total, version.strip('"')), head, file)

    def _get(self, path: str, part: str = "", most: int | None = None) -> tuple[bytes, int, str]:
        """Return a file or a range of it, which has `most` bytes or ends with the file; and its size and etag."""
        where = {"Bucket": self._bucket, "Key": self._key(path), **({"Range": f"bytes={part}"} if part else {})}

        def work(s3: Any) -> tuple[bytes, int, str]:  # noqa: ANN401 - boto3 has no types
            answer = s3.get_object(**where)
            num_bytes = int(answer.get("ContentRange", f"/{answer['ContentLength']}").rpartition("/")[2])
            if most is None and num_bytes > bounds.MOST_TABLE_BYTES:
                raise StoreError(
                    f"{self._place(path)}: has {num_bytes:,} bytes; expected at most {bounds.MOST_TABLE_BYTES:,} in a "
                    "file that is read whole; remove or replace it"
                )
            return _whole(answer, num_bytes if most is None else min(num_bytes, most)), num_bytes, answer["ETag"]

        return self._call(work, "read", path)

    def _fetch(self, path: str, version: str) -> Fetch:
        def fetch(first: int, last: int) -> bytes:
            data, _, current = self._get(path, f"{first}-{last - 1}", last - first)
            if current != version:
                raise StoreError(f"{self._place(path)}: it was replaced while it was read; run again")
            return data

        return fetch

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file by one conditional PUT. Returns False if it exists."""
        if self._honours(_PUT):
            return self._put(path, data, _NEW) is not None
        if self.stat(path) is not None:
            return False
        self.replace(path, data)
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Write a file by one PUT, replacing an existing one."""
        self._put(path, data, {})

    def delete(self, path: str) -> None:
        """Remove a file. A missing file is not an error."""
        key = self._key(path)
        with _ignored(*_MISSING):
            self._call(lambda s3: s3.delete_object(Bucket=self._bucket, Key=key), "remove", path)

    def scratch(self) -> AbstractContextManager[Path]:
        """Yield a path in this machine's temporary folder (TMPDIR)."""
        return local_scratch()

    def publish(self, scratch: Path, path: str, *, replace: bool = False, expected: str | None = None) -> Entry | None:
        """Upload a written scratch file atomically."""
        try:
            num_bytes = scratch.stat().st_size
            etag = (
                self._publish(scratch, path, replace) if expected is None else self._exchange(scratch, path, expected)
            )
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise explain(error, "read", scratch) from error
        if etag is None:
            return None
        scratch.unlink(missing_ok=True)
        return Entry(path, num_bytes, etag.strip('"'))

    def _publish(self, scratch: Path, path: str, replace: bool) -> str | None:
        """Upload a file, unless it exists and may not be replaced, and return its etag."""
        num_bytes = scratch.stat().st_size
        if num_bytes > MULTIPART_BYTES and (replace or self._honours(_COMPLETION)):
            return self._upload(scratch, path, only_new=not replace)
        only_new = not replace and self._honours(_PUT) and num_bytes <= MAX_PUT_BYTES
        # Not atomic, but the best there is: the store ignores the condition, or the file is too large for a PUT.
        if not replace and not only_new and self.stat(path) is not None:
            return None
        if num_bytes > MAX_PUT_BYTES:
            return self._upload(scratch, path, only_new=False)
        return self._put(path, scratch, _NEW if only_new else {})

    def _exchange(self, scratch: Path, path: str, expected: str) -> str | None:
        """Replace a file of the expected version, by one conditional PUT where the store honours if-match."""
        if scratch.stat().st_size <= MAX_PUT_BYTES and self._honours(_MATCH):
            return self._put(path, scratch, {"IfMatch": f'"{expected}"'})
        # Not atomic, but the best there is: the store ignores if-match, or the file is too large for a PUT.
        entry = self.stat(path)
        is_expected = entry is not None and entry.version == expected
        return self._publish(scratch, path, replace=True) if is_expected else None

    def incomplete_uploads(self, older_than_seconds: float = 0) -> Iterator[str]:
        """Yield the names of multipart uploads into this folder that are neither completed nor aborted.

        Only uploads started at least `older_than_seconds` ago by the store's clock are included.
        """
        more: dict[str, str] = {}
        while True:
            page = self._uploads_page(**more)
            latest = _clock(page) - timedelta(seconds=older_than_seconds)
            for upload in page.get("Uploads") or ():
                if upload["Initiated"] <= latest:
                    yield f"{upload['Key'].removeprefix(self._prefix)}?uploadId={upload['UploadId']}"
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _uploads_page(self, **more: object) -> dict[str, Any]:
        where = {"Bucket": self._bucket, "Prefix": self._prefix, **more}
        return self._call(lambda s3: s3.list_multipart_uploads(**where), "list", "")

    def abort_upload(self, name: str) -> None:
        """Abort an upload named by `incomplete_uploads`. A missing one is not an error."""
        path, _, upload = name.rpartition("?uploadId=")
        where = {"Bucket": self._bucket, "Key": self._key(path), "UploadId": upload}
        with _ignored(*_MISSING, "NoSuchUpload"):
            self._call(lambda s3: s3.abort_multipart_upload(**where), "remove", path)

    def _put(self, path: str, body: bytes | Path, condition: Mapping[str, str]) -> str | None:
        """Write a file by one PUT, and return its etag; None if the condition does not hold."""
        key, md5, mark, tries = self._key(path), _md5(body), uuid.uuid4().hex, 0

        def work(s3: Any) -> str | None:  # noqa: ANN401 - boto3 has no types
            nonlocal tries
            tries += 1
            # Opened for each attempt, since a failed one has read a part of it.
            with nullcontext(body) if isinstance(body, bytes) else body.open("rb") as data:
                try:
                    answer = s3.put_object(
                        Bucket=self._bucket, Key=key, Body=data, ContentMD5=md5, Metadata={_MARK: mark}, **condition
                    )
                except Exception as error:
                    if condition and code_of(error) in (*_EXISTS, *_MISSING):
                        # A PUT whose response was lost is retried, and then finds its own file.
                        return self._etag_if_marked(s3, path, mark) if tries > 1 else None
                    raise
            return _etag(answer)

        return self._call(work, "write", path)

    def _etag_if_marked(self, s3: Any, path: str, mark: str) -> str | None:  # noqa: ANN401 - boto3 has no types
        """Return the etag of a file that a certain write made; None if another one did."""
        facts = s3.head_object(Bucket=self._bucket, Key=self._key(path))
        return _etag(facts) if facts["Metadata"].get(_MARK) == mark else None

    def _upload(self, scratch: Path, path: str, *, only_new: bool) -> str | None:
        for _ in range(UPLOADS):
            try:
                return _Upload(self, path, only_new).run(scratch)
            except _ConflictError as error:
                refused = error
                if self.stat(path) is not None:
                    return None
        raise refused

    def _honours(self, operation: str) -> bool:
        """Return whether the store honours the condition of an operation. It is probed once per process."""
        key = (self._client, self._bucket, operation)
        # Held during the probe, so that no two threads probe at once.
        with _honoured_lock:
            if key not in _honoured:
                _honoured[key] = self._probe_condition(operation)
                if not _honoured[key] and operation == _PUT:
                    logger.warning(
                        "%s: this store ignores if-none-match: whether a file exists is checked before it is written, "
                        "so two concurrent runs could write one label shard twice (with the same rows)",
                        self.url,
                    )
            return _honoured[key]

    def _probe_condition(self, operation: str) -> bool:
        path = f"{TMP}/probe-{uuid.uuid4().hex}"
        self.replace(path, b"raysp asks whether this can be overwritten\n")
        try:
            if operation == _MATCH:
                return self._honours_versions(path)
            if operation == _PUT:
                return self._put(path, b"it can\n", _NEW) is None
            return _Upload(self, path, True).run(b"it can\n") is None
        except StoreError as error:
            if error.code in _CONDITION_UNKNOWN:
                return False
            raise
        finally:
            self.delete(path)

    def _honours_versions(self, path: str) -> bool:
        """Return whether a PUT with if-match is refused for another version and accepted for the current one."""
        entry = self.stat(path)
        data, right = b"it can\n", entry.version if entry else ""
        # In the form of an etag: a store could refuse a malformed one without comparing it.
        wrong = f"{int(right[0] == '0')}{right[1:]}" if right else "0"
        refused, written = (self._put(path, data, {"IfMatch": f'"{etag}"'}) for etag in (wrong, right))
        return refused is None and written is not None

    def _call(self, work: Callable[[Any], T], doing: str, path: str) -> T:
        return self._client.call(work, doing, self._place(path))

    def _place(self, path: str) -> str:
        return f"{self.url}/{path}" if path else self.url

    def _key(self, path: str) -> str:
        return self._prefix + inside(path, self.url)


class _Upload:
    """One multipart upload. It is invisible before completion, and a failed attempt is aborted."""

    def __init__(self, store: S3Store, path: str, only_new: bool) -> None:
        self._store, self._path, self._only_new = store, path, only_new
        self._where = {"Bucket": store._bucket, "Key": store._key(path)}
        self._mark = uuid.uuid4().hex
        self._id = ""

    def run(self, body: bytes | Path) -> str | None:
        """Upload a file, and return its etag; None if `only_new` is set and the file exists on completion."""
        made = self._call(lambda s3: s3.create_multipart_upload(**self._where, Metadata={_MARK: self._mark}))
        upload = {**self._where, "UploadId": made["UploadId"]}
        part_bytes = max(PART_BYTES, -(-size_of(body) // MAX_PARTS))
        etag = None

        def send(number: int) -> dict[str, object]:
            data = part_of(body, (number - 1) * part_bytes, part_bytes)
            md5 = _md5(data)
            answer = self._call(lambda s3: s3.upload_part(**upload, PartNumber=number, Body=data, ContentMD5=md5))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                sent = list(pool.map(send, range(1, -(-size_of(body) // part_bytes) + 1)))
            etag = self._complete(upload, sent)
        finally:
            if etag is None:
                with suppress(StoreError):
                    self._call(lambda s3: s3.abort_multipart_upload(**upload))
        return etag

    def _complete(self, upload: Mapping[str, str], parts: list[dict[str, object]]) -> str | None:
        condition = _NEW if self._only_new else {}
        own_etag = partial(self._store._etag_if_marked, path=self._path, mark=self._mark)
        tries = 0

        def work(s3: Any) -> str | None:  # noqa: ANN401 - boto3 has no types
            nonlocal tries
            tries += 1
            try:
                answer = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **condition)
            except Exception as error:
                code = code_of(error)
                if tries > 1 and code in (*_EXISTS, "NoSuchUpload") and (etag := own_etag(s3)) is not None:
                    return etag  # completed, but the response was lost
                if self._only_new and code in _EXISTS:
                    return None
                if code == "ConditionalRequestConflict":
                    raise _ConflictError(
                        f"{self._store._place(self._path)}: another upload of it is being completed"
                    ) from None
                raise
            return _etag(answer) or own_etag(s3) or ""  # Ceph's answer has an empty one

        return self._call(work)

    def _call(self, work: Callable[[Any], T]) -> T:
        return self._store._call(work, "write", self._path)


class _ConflictError(StoreError):
    """A conflict with a concurrent upload. The parts must be sent again unless that upload completed."""


@contextmanager
def _ignored(*codes: str) -> Iterator[None]:
    """End the block at an error of the store with one of these codes."""
    try:
        yield
    except StoreError as error:
        if error.code not in codes:
            raise


def _clock(answer: Mapping[str, Any]) -> datetime:
    """Return the time of a response by the store's clock, rounded up to the end of its second."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return (parsedate_to_datetime(date) if date else datetime.now(UTC)) + timedelta(seconds=1)


def _etag(answer: Mapping[str, Any]) -> str:
    """Return the etag of a response; empty if it has none."""
    etag: str = answer.get("ETag", "")
    return etag


def _entry(path: str, num_bytes: int, facts: Mapping[str, Any]) -> Entry:
    return Entry(path, num_bytes, facts["ETag"].strip('"'), facts["LastModified"].timestamp())


def _whole(answer: Mapping[str, Any], num_bytes: int) -> bytes:
    """Read a response body of exactly `num_bytes`."""
    with closing(answer["Body"]) as body:
        if answer["ContentLength"] > num_bytes:
            raise StoreError(
                f"received {answer['ContentLength']:,} bytes, requested {num_bytes:,}: this store does not "
                "support range requests; copy the files to one that does"
            )
        data: bytes = body.read()
    if len(data) != num_bytes:
        raise TruncatedError(f"received {len(data):,} of {num_bytes:,} bytes")
    return data


def _md5(body: bytes | Path) -> str:
    with io.BytesIO(body) if isinstance(body, bytes) else body.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return base64.b64encode(digest.digest()).decode()
