"""A store on any file system of fsspec: Google Cloud, Azure and memory; other schemes are read-only.

Writes are allowed only where fsspec writes a file in one step. On a plain file server a reader could see a partial
file.
"""

import inspect
import logging
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysp import bounds
from raysp.errors import StoreError
from raysp.storage.opened import Opened
from raysp.storage.options import resolve
from raysp.storage.ranged import Fetch, RangedFile, open_ranged
from raysp.storage.store import SCHEME, TMP, Entry, RefusedError, inside, local_scratch

logger = logging.getLogger(__name__)

ATOMIC = ("abfs", "abfss", "az", "gcs", "gs", "memory")
"""Schemes with atomic writes."""
UNLISTED = ("http", "https")
_OF_COMMIT = re.compile(r"hf://(?:datasets/|spaces/)?[^/@]+/[^/@]+@[0-9a-f]{40}(?:/|$)")
"""A folder of the Hugging Face hub at a commit, whose files never change."""
VERSIONS = ("etag", "ETag", "generation", "mtime", "last_modified", "created", "checksum", "md5")
CHECKSUMS = ("md5Hash", "crc32c", "blob_id")
"""Checksums of Google Cloud Storage and of the Hugging Face hub, which stay when a file is written again."""
MODIFIED = ("mtime", "updated", "last_modified", "LastModified", "created")
SHOWN_CHARACTERS = 200

_creating = threading.Lock()  # memory:// is shared by threads only: this lock makes `create` atomic there
_warned: set[str] = set()


class FsspecStore:
    """A folder of an fsspec file system.

    Args:
        url: url with a scheme.
        storage_options: options of the file system, with its own names.
    """

    def __init__(self, url: str, storage_options: Mapping[str, object] | None = None) -> None:
        self._scheme = (SCHEME.match(url) or [""])[0].rstrip(":/").lower()
        self._url = url if url.endswith("://") else url.rstrip("/")
        self._options = dict(storage_options or {})

    @property
    def url(self) -> str:
        """Url of the folder."""
        return self._url

    @cached_property
    def _files(self) -> Any:  # noqa: ANN401 - fsspec has no types
        import fsspec

        with self._explained("reach", ""):
            return fsspec.filesystem(self._scheme, **resolve(self._options))

    @cached_property
    def _root(self) -> str:
        return str(self._files._strip_protocol(self._url)).rstrip("/")

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the files whose path begins with `prefix`, at any depth, sorted by path."""
        if self._scheme in UNLISTED:
            raise StoreError(f"{self._url}: a web server does not list its files; give the url of each")
        folder = self._locate(prefix.rpartition("/")[0])
        with self._explained("list", ""):
            self._refresh()
            try:
                found = self._files.find(folder, detail=True)
            except FileNotFoundError:
                return
        begins = len(self._root) + 1
        for path in sorted(found):
            if path[begins:].startswith(prefix) and path[:begins] == f"{self._root}/":
                yield _entry(path[begins:], found[path])

    def stat(self, path: str) -> Entry | None:
        """Return the entry of a file, or None if it does not exist."""
        place = self._locate(path)
        with self._explained("look at", path):
            self._refresh()
            try:
                found = self._files.info(place)
            except FileNotFoundError:
                return None
            return _entry(path, found) if found["type"] == "file" else None

    def read(self, path: str) -> bytes:
        """Return a whole file, read in parts, since a server may announce no size."""
        place = self._locate(path)
        with self._explained("read", path), self._files.open(place, "rb") as file:
            return bounds.read(file, bounds.MOST_TABLE_BYTES)

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random access."""
        entry = self.stat(path)
        if entry is None:
            raise StoreError(f"{self._place(path)}: cannot read it (no such file); check the url")
        return open_ranged(entry.num_bytes, self._fetch(path, entry))

    def open_version(self, path: str, num_bytes: int) -> Opened | None:
        """Open a file and read its first bytes. Returns None if it does not exist."""
        entry = self.stat(path)
        if entry is None:
            return None
        fetch = self._fetch(path, entry)
        head = fetch(0, min(entry.num_bytes, num_bytes)) if entry.num_bytes else b""
        return Opened(entry, head, RangedFile(entry.num_bytes, fetch, head=head))

    def _refresh(self) -> None:
        """Forget the listings that the client keeps, unless files here never change."""
        if not _OF_COMMIT.match(self._url):
            self._files.invalidate_cache()

    def _fetch(self, path: str, entry: Entry) -> Fetch:
        if entry.num_bytes is None:
            raise StoreError(f"{self._place(path)}: its server does not report its size; download it and give its path")
        place = self._locate(path)
        how = {"cache_type": "none"} if self._scheme == "hf" else {}  # else each range is read 5 MB ahead

        def fetch(first: int, last: int) -> bytes:
            with self._explained("read", path):
                data = bytes(self._files.cat_file(place, start=first, end=last, **how))
            if len(data) != last - first:
                raise StoreError(
                    f"{self._place(path)}: received {len(data):,} of {last - first:,} bytes; its server does not "
                    "support range requests, or the file was replaced while it was read: download it and give its path"
                )
            return data

        return fetch

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file. Returns False if it exists."""
        place = self._writable(path)
        condition = self._condition("pipe_file")
        with self._explained("write", path), _creating:
            if not condition and self._files.exists(place):
                return False
            try:
                self._files.pipe_file(place, data, **condition)
            except FileExistsError:
                return False
        return True

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, replacing an existing one."""
        place = self._writable(path)
        with self._explained("write", path):
            self._files.pipe_file(place, data)

    def delete(self, path: str) -> None:
        """Remove a file. A missing file is not an error."""
        place = self._writable(path)
        with self._explained("remove", path):
            try:
                self._files.rm_file(place)
            except FileNotFoundError:
                return

    def scratch(self) -> AbstractContextManager[Path]:
        """Yield a path in this machine's temporary folder (TMPDIR)."""
        return local_scratch()

    def publish(self, scratch: Path, path: str, *, replace: bool = False, expected: str | None = None) -> bool:
        """Upload a written scratch file.

        Clients of fsspec have no condition on the replaced version, so `expected` is checked before the write.
        """
        place = self._writable(path)
        condition = {} if replace else self._condition("put_file")
        with self._explained("write", path), _creating:
            if not replace and self._files.exists(place):
                return False
            if expected is not None and ((found := self.stat(path)) is None or found.version != expected):
                return False
            try:
                self._files.put_file(str(scratch), place, **condition)
            except FileExistsError:
                return False
        scratch.unlink(missing_ok=True)
        return True

    def probe(self) -> None:
        """Write and remove one small file."""
        path = f"{TMP}/probe-{uuid.uuid4().hex}"
        self.create(path, b"raysp asks whether it may write here\n")
        self.delete(path)

    def _condition(self, method: str) -> dict[str, str]:
        """Return the keyword that makes a write fail if the file exists. Warns and returns {} where there is none."""
        private = getattr(type(self._files), f"_{method}", None)  # the file system's own implementation
        found = private if private is not None else getattr(type(self._files), method)
        if "mode" in inspect.signature(found).parameters:
            return {"mode": "create"}
        if self._scheme not in _warned:
            _warned.add(self._scheme)
            logger.warning(
                "%s: this client of %s:// writes without a condition: whether a file exists is checked before it "
                "is written, so two concurrent runs could write one label shard twice (with the same rows)",
                self._url,
                self._scheme,
            )
        return {}

    def _writable(self, path: str) -> str:
        if self._scheme not in ATOMIC:
            raise StoreError(
                f"{self._url}: {self._scheme}:// can only be read; write to s3://, to {'://, '.join(ATOMIC)}:// or to "
                "a local path"
            )
        return self._locate(path)

    def _locate(self, path: str) -> str:
        return f"{self._root}/{inside(path, self._url)}" if path else self._root

    def _place(self, path: str) -> str:
        return f"{self._url.rstrip('/')}/{path}" if path else self._url

    @contextmanager
    def _explained(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except bounds.TooLargeError as error:
            raise StoreError(
                f"{self._place(path)}: {error} in a file that is read whole; remove or replace it"
            ) from None
        except Exception as error:  # each client has its own exception types
            said = " ".join(str(error).split())
            for secret in _texts(resolve(self._options)):
                said = said.replace(secret, "***")
            reason = f"{type(error).__name__}: {said[:SHOWN_CHARACTERS]}"
            kind = RefusedError if _is_refusal(error) else StoreError
            raise kind(
                f"{self._place(path)}: cannot {doing} it ({reason}); check the url, storage_options and permissions, "
                "and run again: committed work is kept"
            ) from None


def _is_refusal(error: Exception) -> bool:
    """Return whether permission was denied: PermissionError or HTTP status 403."""
    statuses = (getattr(error, name, None) for name in ("code", "status", "status_code"))
    return isinstance(error, PermissionError) or any(str(status) == "403" for status in statuses)


def _entry(path: str, facts: Mapping[str, Any]) -> Entry:
    version = next((facts[name] for name in VERSIONS if facts.get(name)), "")
    if isinstance(version, datetime):  # some clients return seconds in listings, and a date for a single file
        version = version.timestamp()
    checksum = next((str(facts[name]) for name in CHECKSUMS if facts.get(name)), "")
    return Entry(path, facts["size"], str(version).strip('"'), _modified(facts), checksum)


def _modified(facts: Mapping[str, Any]) -> float | None:
    """Return the modification time in seconds. Each client has its own field name and type."""
    found = next((facts[name] for name in MODIFIED if facts.get(name)), None)
    if isinstance(found, str):
        with suppress(ValueError):
            found = datetime.fromisoformat(found)
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else None


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, str) and len(value) > 3:
        yield value
