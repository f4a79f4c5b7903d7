"""A store on Google Cloud Storage, Azure or memory; every other file system of fsspec is read-only.

Writes are allowed only where a file appears in one step. On a plain file server a reader could see a partial file.
"""

import re
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
from raysp.storage.fsspec_files import (
    MARK,
    AzureFiles,
    Facts,
    Files,
    ForgottenError,
    GoogleFiles,
    NoContainerError,
    PlainFiles,
    ReplacedError,
)
from raysp.storage.opened import Opened
from raysp.storage.options import resolve
from raysp.storage.ranged import Fetch, RangedFile, open_ranged
from raysp.storage.store import SCHEME, ArchivedError, Entry, RefusedError, UnusableError, inside, local_scratch

AZURE, GOOGLE = ("abfs", "abfss", "az"), ("gcs", "gs")
ATOMIC = (*AZURE, *GOOGLE, "memory")
"""Schemes with atomic writes."""
UNLISTED = ("http", "https")
VERSIONS = ("etag", "ETag", "generation", "mtime", "last_modified", "created", "checksum", "md5")
CHECKSUMS = ("md5Hash", "crc32c", "blob_id")
"""Checksums of Google Cloud Storage and of the Hugging Face hub, which stay when a file is written again."""
MODIFIED = ("mtime", "updated", "last_modified", "LastModified", "created")
SHOWN_CHARACTERS = 200
_OF_SIGNING = re.compile(r"bearer |sharedkey|signature|sig=|credential=|authorization|accountkey", re.I)
_WRONG_KEYS = (
    *("AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation", "AccountIsDisabled"),
    *("RefreshError", "DefaultCredentialsError", "ClientAuthenticationError", "CredentialUnavailableError"),
)
"""Codes and exceptions of credentials that no request is allowed with."""


class FsspecStore:
    """A folder of an fsspec file system.

    Args:
        url: url with a scheme.
        storage_options: options of the file system, with its own names.
    """

    def __init__(self, url: str, storage_options: Mapping[str, object] | None = None) -> None:
        self._scheme = (SCHEME.match(url) or [""])[0].rstrip(":/").lower()
        self.url = url if url.endswith("://") else url.rstrip("/")
        self._options = dict(storage_options or {})

    def __reduce__(self) -> tuple[type["FsspecStore"], tuple[str, Mapping[str, object]]]:
        """Pickle the url and the options, with references to the environment: another process connects by itself."""
        return type(self), (self.url, self._options)

    @cached_property
    def _files(self) -> Files:
        kind = GoogleFiles if self._scheme in GOOGLE else AzureFiles if self._scheme in AZURE else PlainFiles
        with self._explained("reach", ""):
            return kind(self.url, resolve(self._options))

    @cached_property
    def _root(self) -> str:
        return self._files.root(self.url)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the files whose path begins with `prefix`, at any depth, sorted by path."""
        if self._scheme in UNLISTED:
            raise StoreError(
                f"{self.url}: a web server does not list its files; give the url of each file of a source. Labels "
                "need a folder of a disk or of object storage"
            )
        begins = f"{self._locate('')}/"
        with self._explained("list", ""):
            for place, facts in self._files.list(begins + prefix):
                yield _entry(place.removeprefix(begins), facts)

    def stat(self, path: str) -> Entry | None:
        """Return the entry of a file, or None if it does not exist."""
        facts = self._facts(path)
        return None if facts is None else _entry(path, facts)

    def _facts(self, path: str) -> Facts | None:
        place = self._locate(path)
        with self._explained("look at", path):
            return self._files.facts(place)

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        place = self._locate(path)
        with self._explained("read", path):
            return self._files.read(place)

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random access."""
        facts = self._facts(path)
        if facts is None:
            raise StoreError(f"{self._place(path)}: cannot read it (no such file); check the url")
        return open_ranged(facts["size"], self._fetch(path, facts))

    def open_version(self, path: str, num_bytes: int) -> Opened | None:
        """Open a file and read its first bytes. Returns None if it does not exist."""
        facts = self._facts(path)
        if facts is None:
            return None
        fetch, entry = self._fetch(path, facts), _entry(path, facts)
        head = fetch(0, min(entry.num_bytes, num_bytes)) if entry.num_bytes else b""
        return Opened(entry, head, RangedFile(entry.num_bytes, fetch, head=head))

    def _fetch(self, path: str, facts: Facts) -> Fetch:
        if facts["size"] is None:
            raise StoreError(f"{self._place(path)}: its server does not report its size; download it and give its path")
        place = self._locate(path)

        def fetch(first: int, last: int) -> bytes:
            with self._explained("read", path):
                data = self._files.fetch(place, first, last, facts)
            if len(data) != last - first:
                raise StoreError(
                    f"{self._place(path)}: received {len(data):,} of {last - first:,} bytes; its server does not "
                    "support range requests, or the file was replaced while it was read: download it and give its path"
                )
            return data

        return fetch

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file. Returns False if it exists."""
        return self._write(path, data, new=True) is not None

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, replacing an existing one."""
        self._write(path, data)

    def delete(self, path: str) -> None:
        """Remove a file. A missing file is not an error."""
        place = self._writable(path)
        with self._explained("remove", path), suppress(FileNotFoundError):
            self._files.delete(place)

    def scratch(self) -> AbstractContextManager[Path]:
        """Yield a path in this machine's temporary folder (TMPDIR)."""
        return local_scratch()

    def publish(self, scratch: Path, path: str, *, replace: bool = False, expected: str | None = None) -> Entry | None:
        """Upload a written scratch file atomically."""
        if expected is None:
            published = self._write(path, scratch, new=not replace)
        else:
            facts = self._facts(path)
            is_there = facts is not None and _entry(path, facts).version == expected
            # The write has the condition too, since the file may be replaced after this look.
            published = self._write(path, scratch, over=facts) if is_there else None
        if published is None:
            return None
        scratch.unlink(missing_ok=True)
        return _entry(path, published)

    def _write(self, path: str, body: bytes | Path, *, new: bool = False, over: Facts | None = None) -> Facts | None:
        place, mark = self._writable(path), uuid.uuid4().hex
        with self._explained("write", path):
            try:
                return self._files.write(place, body, mark, new=new, over=over)
            except (FileExistsError, ForgottenError) as error:
                # A request whose response was lost is repeated, and then meets its own file.
                facts = self._files.facts(place)
                if facts is not None and (facts.get("metadata") or {}).get(MARK) == mark:
                    return facts
                if isinstance(error, ForgottenError):
                    raise
                return None

    def _writable(self, path: str) -> str:
        if self._scheme not in ATOMIC:
            raise StoreError(
                f"{self.url}: {self._scheme}:// can only be read; write to s3://, to {'://, '.join(ATOMIC)}:// or to "
                "a local path"
            )
        return self._locate(path)

    def _locate(self, path: str) -> str:
        return f"{self._root}/{inside(path, self.url)}" if path else self._root

    def _place(self, path: str) -> str:
        return f"{self.url.rstrip('/')}/{path}" if path else self.url

    @contextmanager
    def _explained(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except ReplacedError:
            raise StoreError(f"{self._place(path)}: it was replaced while it was read; run again") from None
        except bounds.TooLargeError as error:
            raise StoreError(
                f"{self._place(path)}: {error} in a file that is read whole; remove or replace it"
            ) from None
        except Exception as error:  # each client has its own exception types
            raise _kind(error)(
                f"{self._place(path)}: cannot {doing} it ({self._reason(error)}); {_advice(error)}, and run again: "
                "committed work is kept"
            ) from None

    def _reason(self, error: Exception) -> str:
        """Return type and message of an error. The message is left out if it could reveal how requests are signed."""
        message = " ".join(str(error).split())
        for secret in _texts(resolve(self._options)):
            message = message.replace(secret, "***")
        shown = "" if _OF_SIGNING.search(message) else f": {message[:SHOWN_CHARACTERS]}"
        return f"{type(error).__name__}{shown}"


def _advice(error: Exception) -> str:
    if _is_archived(error):
        return "it is in the archive tier: rehydrate it (az storage blob set-tier --tier Hot, which takes hours)"
    return "check the url, storage_options and permissions"


def _is_archived(error: Exception) -> bool:
    """Return whether Azure refuses to read a blob of its archive tier. Archives of Google are read as other files."""
    return str(getattr(error, "error_code", "")) in ("BlobArchived", "BlobBeingRehydrated")


def _kind(error: Exception) -> type[StoreError]:
    """Return the class of an error by whom it concerns: every request, this file's permissions, or this request."""
    if _is_archived(error):
        return ArchivedError
    statuses = [str(getattr(error, name, None)) for name in ("code", "status", "status_code")]
    names = {type(error).__name__, str(getattr(error, "error_code", ""))}
    if names.intersection(_WRONG_KEYS) or "401" in statuses or isinstance(error, NoContainerError):
        return UnusableError
    is_forbidden = type(error) is OSError and str(error).startswith("Forbidden")  # from gcsfs
    return RefusedError if is_forbidden or "403" in statuses or isinstance(error, PermissionError) else StoreError


def _entry(path: str, facts: Mapping[str, Any]) -> Entry:
    version = next((facts[name] for name in VERSIONS if facts.get(name)), "")
    if isinstance(version, datetime):  # some clients return seconds in listings, and a date for a single file
        version = version.timestamp()
    checksum = next((str(facts[name]) for name in CHECKSUMS if facts.get(name)), "")
    return Entry(path, facts["size"], str(version).strip('"'), _modified(facts), checksum)


def _modified(facts: Mapping[str, Any]) -> float | None:
    """Return the modification time in seconds. Each client has its own field name and type."""
    time = next((facts[name] for name in MODIFIED if facts.get(name)), None)
    if isinstance(time, str):
        with suppress(ValueError):
            time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return time.timestamp()
    return float(time) if isinstance(time, int | float) else None


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in options that may be secrets, and the parts of a connection string."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, str) and len(value) > 3:
        yield value
        yield from (secret for _, secret in _SECRET_PARTS.findall(value))


_SECRET_PARTS = re.compile(r"(AccountKey|SharedAccessSignature)=([^;]+)")
