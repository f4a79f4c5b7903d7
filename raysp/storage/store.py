"""Storage of files, with the operations that shards, stages and label shards need.

`Store` is the interface that the commit protocol uses. `LocalStore` is a folder, `s3.S3Store` a bucket, and
`fsspec_store.FsspecStore` any other file system of fsspec. An object store makes a file visible by one request (a PUT
with if-none-match, a completed multipart upload), a local folder by one `link` or `rename`, so readers never see a
partial file. Temporary files of a store are under `.raysp/tmp/`, locally on the same file system as their destination.
"""

import errno
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa

from raysp import bounds
from raysp.errors import StoreError
from raysp.storage.opened import Entry as Entry
from raysp.storage.opened import LocalFile, Opened, locked
from raysp.storage.options import is_passed_over, matches, split_glob

HOME = ".raysp/"
TMP = f"{HOME}tmp"
REPLACING = f"{HOME}replacing"
"""Lock file that is held while a file of an expected version is replaced."""
KEYED = ("s3", "gs", "gcs", "az", "abfs", "abfss")
"""Schemes of object stores, whose keys may have empty parts: `audio//x.parquet` is not `audio/x.parquet`."""
SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)(?:://|::)")
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: opening a pipe would block."""
LINK_ATTEMPTS = 100  # a concurrent `delete` can remove the empty folder between mkdir and link


class UnusableError(StoreError):
    """A location that cannot be used: no space left, no permission, no such bucket.

    Every other file would fail as well, so a run stops instead of failing shard by shard.
    """


class RefusedError(UnusableError):
    """A file that is refused because permission is missing. Other files of the same location may be readable."""


class ArchivedError(RefusedError):
    """A file in an archive tier, which storage refuses to read before it is restored."""


class NothingListedError(StoreError):
    """A url without files: no such file or folder, or no match."""


class Store(Protocol):
    """A root and the files under it. Every failure is a `StoreError`. Paths are relative to the root, with `/`."""

    @property
    def url(self) -> str:
        """Url of the root, as a user would write it."""
        ...

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the files whose path begins with `prefix`, at any depth, sorted by path."""
        ...

    def stat(self, path: str) -> Entry | None:
        """Return the entry of a file, or None if it does not exist."""
        ...

    def read(self, path: str) -> bytes:
        """Return a whole file, of at most `bounds.MOST_TABLE_BYTES`."""
        ...

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random access. Only the ranges that are read are transferred."""
        ...

    def open_version(self, path: str, num_bytes: int) -> Opened | None:
        """Open a file and read its first bytes and entry in one step. Returns None if it does not exist."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file in one atomic step. Returns False without a change if it exists."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a file in one atomic step, replacing an existing one."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file. A missing file is not an error."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """Yield a local path for writing a large file. A file left there is removed on exit."""
        ...

    def publish(self, scratch: Path, path: str, *, replace: bool = False, expected: str | None = None) -> Entry | None:
        """Make a written scratch file visible in one atomic step, and return its entry.

        The entry describes the file that was written, even if another process has replaced it since. Returns None
        without a change if `path` exists and `replace` is not set, or if `expected` is set and the existing file has
        another version. A store without conditional writes checks before it writes.
        """
        ...


class LocalStore:
    """A local folder, created by the first write."""

    def __init__(self, root: str | Path) -> None:
        self._root = local_path(root)
        self.url = str(self._root)
        self._made: set[Path] = set()
        """Folders that this store created for scratch files."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the files whose path begins with `prefix`, at any depth, sorted by path.

        Links to folders are followed, as readers do, unless they form a loop or are under `.raysp`. Files that are
        found under `.raysp` may be removed, so they must not be outside it.
        """
        folder = prefix.rpartition("/")[0]
        place = self._locate(folder)
        with explained("list", place):
            above = (os.path.realpath(self._root), os.path.realpath(place))
            walked = _walk(str(place), f"{folder}/" if folder else "", prefix, above)
            entries = sorted(walked, key=lambda entry: entry.path)
        yield from entries

    def stat(self, path: str) -> Entry | None:
        """Return the entry of a file, or None if it does not exist."""
        place = self._locate(path)
        with explained("look at", place):
            try:
                status = place.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return None if place.is_dir() else _entry(status, path)

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        place = self._locate(path)
        with explained("read", place):
            _refuse_special(place)
            return bounds.read_file(place, bounds.MOST_TABLE_BYTES)

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random access."""
        place = self._locate(path)
        with explained("read", place):
            _refuse_special(place)
            # As bytes: Arrow encodes texts as UTF-8, which a name of another encoding cannot be.
            return pa.OSFile(cast("str", os.fsencode(place)), "rb")

    def open_version(self, path: str, num_bytes: int) -> Opened | None:
        """Open a file and read its first bytes. Returns None if it does not exist."""
        place = self._locate(path)
        with explained("read", place):
            try:
                descriptor = os.open(place, _READ_FLAGS)
            except (FileNotFoundError, NotADirectoryError):
                return None
            # Of the open file: the path may name another one by now.
            status = os.fstat(descriptor)
            file = LocalFile(descriptor, status, str(place))
            head = file.read(num_bytes)
            file.seek(0, os.SEEK_SET)
            return Opened(Entry(path, status.st_size, str(status.st_mtime_ns)), head, file)

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file in one atomic step. Returns False if it exists."""
        return self._write(path, data, replace=False) is not None

    def replace(self, path: str, data: bytes) -> None:
        """Write a file in one atomic step, replacing an existing one."""
        self._write(path, data, replace=True)

    def delete(self, path: str) -> None:
        """Remove a file, and parent folders that become empty. A missing file is not an error.

        The root stays, unless the file was the last one under `.raysp` and this store created the root.
        """
        place = self._locate(path)
        with explained("remove", place), suppress(FileNotFoundError, NotADirectoryError):
            place.unlink()
        with suppress(OSError):
            for folder in place.parents:
                # `.raysp/tmp` stays for the scratch files of other processes.
                if folder in (self._root, self._locate(TMP)):
                    break
                if folder == self._locate(HOME):
                    self._remove_home()
                    break
                # Fails, and ends the loop, for a folder that another process is filling.
                folder.rmdir()

    def _remove_home(self) -> None:
        """Remove `.raysp` if it holds no file, and the folders above it that this store created."""
        home, scratches = self._locate(HOME), self._locate(TMP)
        if [*home.iterdir()] == [scratches]:
            for folder in (scratches, home, *(parent for parent in home.parents if parent in self._made)):
                folder.rmdir()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a path under `.raysp/tmp/`, on the same file system."""
        place = self._locate(TMP) / uuid.uuid4().hex
        with explained("write to", self._root):
            self._made.update(_make_folder(place.parent))
        try:
            yield place
        finally:
            with suppress(OSError):
                place.unlink(missing_ok=True)

    def publish(self, scratch: Path, path: str, *, replace: bool = False, expected: str | None = None) -> Entry | None:
        """Link a written scratch file to `path`, or rename it to replace a file, after its bytes are synced to disk."""
        place = self._locate(path)
        with explained("write", place):
            _sync(scratch)
            entry = _entry(scratch.stat(), path)  # links and renames keep the modification time
            try:
                if expected is None:
                    _bring(scratch, place, replace=replace)
                else:
                    # File systems have no conditional rename, so processes that replace a version take turns.
                    with locked(self._locate(REPLACING)):
                        current = self.stat(path)
                        if current is None or current.version != expected:
                            return None
                        _bring(scratch, place, replace=True)
            except FileExistsError:
                if place.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
                return None
            scratch.unlink(missing_ok=True)
            # The name is durable once its folder is synced, and the content was synced before it.
            _sync_folder(place.parent)
        return entry

    def _write(self, path: str, data: bytes, *, replace: bool) -> Entry | None:
        with self.scratch() as scratch:
            with explained("write", self._locate(path)):
                try:
                    scratch.write_bytes(data)
                except FileNotFoundError:  # another process removed the last file under `.raysp`
                    _make_folder(scratch.parent)
                    scratch.write_bytes(data)
            return self.publish(scratch, path, replace=replace)

    def _locate(self, path: str) -> Path:
        return self._root / inside(path, self._root)


def probe(store: Store) -> None:
    """Write and remove one small file of a store, so that an unusable location is rejected before work starts."""
    path = f"{TMP}/probe-{uuid.uuid4().hex}"
    store.create(path, b"raysp asks whether it may write here\n")
    store.delete(path)


def size_of(body: bytes | Path) -> int:
    """Return the number of bytes of a file to write."""
    return len(body) if isinstance(body, bytes) else body.stat().st_size


def part_of(body: bytes | Path, first: int, num_bytes: int) -> bytes:
    """Return at most `num_bytes` of a file to write, from byte `first` on."""
    if isinstance(body, bytes):
        return body[first : first + num_bytes]
    with body.open("rb") as file:
        file.seek(first)
        return file.read(num_bytes)


@dataclass(frozen=True)
class Listing:
    """The files of a url, glob or folder."""

    root: str
    """The folder before the first wildcard, the folder itself, or a single file's folder."""
    entries: tuple[Entry, ...]
    """Sorted by path, which is relative to `root`."""
    markers: frozenset[str] = frozenset()
    """Paths that were seen and not listed, as far as they may mark the format of a folder; see `options.marker`."""


def inside(path: str, root: str | Path) -> str:
    """Return a path of a store unchanged.

    Raises:
        StoreError: it could lead out of the root.
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise StoreError(f"{root}: {path!r} is not a path inside this folder")
    return path


def scheme_of(url: str) -> str:
    """Return a url's scheme in lower case; empty for a local path.

    Raises:
        StoreError: fsspec does not support the scheme, or several are chained.
    """
    match = SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    chained = match is not None and match[0].endswith("::")
    if scheme in ("", "file", "local") and not chained:
        return ""
    if scheme == "s3" and not chained:
        return scheme
    import fsspec

    if scheme in ("s3a", "s3n") and not chained:
        raise StoreError(f"{url!r}: {scheme}:// is a name that only Hadoop uses; write s3://{SCHEME.sub('', url)}")
    if chained or scheme not in fsspec.available_protocols():
        raise StoreError(
            f"{url!r}: found the scheme {scheme!r}; expected a local path, s3://, gs://, az:// or another of fsspec's"
        )
    return scheme


def normalise(url: str) -> str:
    """Return a url or local path as listings and stores write it: absolute, without a trailing slash."""
    if not (scheme := scheme_of(url)):
        return str(local_path(url))
    rest = SCHEME.sub("", url).rstrip("/")
    return f"{scheme}://{rest}"


def split_url(url: str) -> tuple[str, str]:
    """Split a url or path into folder and file name.

    Raises:
        StoreError: The folder of a key ends with an empty part, which a store's root cannot have.
    """
    folder, _, name = url.rpartition("/")
    refuse_empty_part(folder, url)
    if not folder:
        return "/" if url.startswith("/") else ".", name
    return (f"{folder}/" if folder.endswith(":/") else folder), name


def refuse_empty_part(folder: str, url: str) -> None:
    """Raise StoreError for a url whose path has an empty part."""
    if folder.endswith("/") and not folder.endswith("://") and folder.partition("://")[0].lower() in KEYED:
        raise StoreError(_EMPTY_PART.format(url))


_EMPTY_PART = (
    "{}: the key has an empty part ('//'), which names of files and label shards cannot hold; copy the object "
    "to a key with single slashes, or give a folder or pattern without it"
)


def join_url(folder: str, path: str) -> str:
    """Return the url of a path in a folder."""
    return f"{folder}{path}" if folder.endswith("/") else f"{folder}/{path}"


def expand_local(url: str, folder_pattern: str) -> Listing:
    """List local files; see `raysp.storage.stores.expand`."""
    path = local_path(url)
    root, pattern = str(path), folder_pattern
    entries: dict[str, Entry] = {}
    markers: set[str] = set()
    with explained("list", path):
        if not path.is_dir():
            if path.exists():
                return Listing(str(path.parent), (_entry(path.stat(), path.name),))
            root, pattern = split_glob(root)
            root = root or "/"
        if not pattern:
            raise NothingListedError(f"{url!r}: no such file or folder; check the path, or wait until it is mounted")
        _collect(root, "", pattern.split("/"), frozenset({os.path.realpath(root)}), entries, markers)
    return Listing(root, tuple(sorted(entries.values(), key=lambda entry: entry.path)), frozenset(markers))


@contextmanager
def local_scratch() -> Iterator[Path]:
    """Yield a path in the temporary folder (TMPDIR) for a file to upload."""
    with explained("write to", tempfile.gettempdir()):
        folder = tempfile.mkdtemp(prefix="raysp-")
    try:
        yield Path(folder, "scratch")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def explain(error: OSError, doing: str, place: str | Path) -> StoreError:
    """Convert an error of the operating system to a `StoreError` with the place, the reason and advice."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0, "check the place and run again")
    kind = RefusedError if error.errno in _REFUSED else UnusableError if error.errno in _UNUSABLE else StoreError
    return kind(f"{place}: cannot {doing} it ({reason}); {advice}")


_REFUSED = (errno.EACCES, errno.EPERM)
_UNUSABLE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_FULL = (*_UNUSABLE, errno.EFBIG, errno.EIO)
_GO_ON = "or choose another place, and run again: committed work is kept"
_NO_ROOM = f"free space {_GO_ON}"
_NO_PERMISSION = "grant this user permission or choose another place"
_ADVICE = {
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: f"the quota is used up: {_NO_ROOM}",
    errno.EFBIG: f"the largest file allowed here is smaller: raise the limit (ulimit -f) {_GO_ON}",
    errno.ENOTDIR: "a file is where a folder is needed: move it or choose another place",
    errno.EEXIST: "a file is where a folder is needed: move it or choose another place",
    errno.EISDIR: "a folder is where a file is needed: move it or choose another place",
    errno.ENOENT: "check the path, or wait until it is mounted",
    errno.ENAMETOOLONG: "the name is too long for this file system: rename the shard",
    errno.ELOOP: "its links form a loop: correct them",
    errno.EXDEV: "a link leads to another file system, to which no file can be moved atomically: replace the link "
    "by a folder, or choose another place",
    errno.EOPNOTSUPP: "files are made visible by hard links, which this file system lacks: choose another place",
    errno.EMLINK: "files are made visible by hard links, which this file system lacks: choose another place",
}


@contextmanager
def explained_if_full(place: str) -> Iterator[None]:
    """Raise errors of a place that holds no more bytes as StoreError; errors of code that fills it pass."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError) or error.errno not in _FULL:
            raise
        raise explain(error, "write", place) from error


@contextmanager
def explained(doing: str, place: str | Path) -> Iterator[None]:
    """Raise errors of the operating system as StoreError, by `explain`."""
    try:
        yield
    except StoreError:
        raise
    except bounds.TooLargeError as error:
        raise StoreError(f"{place}: {error} in a file that is read whole; remove or replace it") from error
    except OSError as error:
        raise explain(error, doing, place) from error


def _refuse_special(place: Path) -> None:
    """Raise StoreError for a pipe, socket or device, which could block or never end."""
    kind = place.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise StoreError(f"{place}: is a pipe, a socket or a device; expected a regular file")


def local_path(url: str | Path) -> Path:
    """Return the absolute path of a local url or path, with `..` resolved, and links not."""
    path = SCHEME.sub("", str(url))
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 (resolves `..` but not links)


def _bring(scratch: Path, place: Path, *, replace: bool) -> None:
    """Link or rename. Retries if a concurrent `delete` removes the empty folder between mkdir and link."""
    for attempt in range(1, LINK_ATTEMPTS + 1):
        try:
            _make_folder(place.parent)
            if replace:
                scratch.replace(place)
            else:
                # A link fails if the name exists; a rename would replace the file.
                place.hardlink_to(scratch)
            return
        except FileNotFoundError:
            if attempt == LINK_ATTEMPTS or not scratch.exists():
                raise


def _make_folder(folder: Path) -> list[Path]:
    """Create a folder with its parents, and return those that did not exist."""
    if folder.is_dir():
        return []
    made = _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if folder.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
        return made
    _sync_folder(folder.parent)
    return [*made, folder]


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk, unless the file system cannot or a concurrent `delete` removed the folder."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def _walk(folder: str, path: str, prefix: str, above: tuple[str, ...]) -> Iterator[Entry]:
    """Yield the files under `folder` whose path begins with `prefix`, unsorted. Skips files removed during the listing.

    `above` holds the real paths of the folders from the root to `folder`, the last one, to detect loops of links.
    """
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as children:
        for child in children:
            below = f"{path}{child.name}"
            if _leads_to(child.is_dir):
                if not (f"{below}/".startswith(prefix) or prefix.startswith(f"{below}/")):
                    continue
                real = f"{above[-1]}/{child.name}"
                if child.is_symlink():
                    real = os.path.realpath(child.path)
                    if real in above or below.startswith(HOME):
                        continue
                yield from _walk(child.path, f"{below}/", prefix, (*above, real))
            elif below.startswith(prefix):
                with suppress(FileNotFoundError):
                    if _leads_to(child.is_file):
                        yield _entry(child.stat(), below)


def _leads_to(look: Callable[[], bool]) -> bool:
    """Return the result of a look at a file; False for a loop of links, as for a broken link."""
    try:
        return look()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _entry(status: os.stat_result, path: str) -> Entry:
    return Entry(path, status.st_size, str(status.st_mtime_ns), status.st_mtime)


def check_names(listing: Listing) -> None:
    """Raise if the name of a listed file is not valid UTF-8, or is a key with an empty part.

    Raises:
        StoreError: there is such a file; the message has the first one's name.
    """
    for entry in listing.entries:
        try:
            entry.path.encode()
        except UnicodeEncodeError:
            reason = f"the file name {entry.path!r} is not valid UTF-8; rename the file"
            raise StoreError(f"{listing.root}: {reason}") from None
        if "" in entry.path.split("/"):
            raise StoreError(_EMPTY_PART.format(join_url(listing.root, entry.path)))


def _collect(
    folder: str, path: str, pattern: Sequence[str], above: frozenset[str], entries: dict[str, Entry], markers: set[str]
) -> None:
    """Collect the files under `folder` that match a pattern's components into `entries`, and markers of its format.

    `above` holds the real paths of the folders from the root to `folder`, to detect loops of links.
    """
    with explained("list", folder), os.scandir(folder) as children:
        for child in children:
            below, is_folder = f"{path}{child.name}", _leads_to(child.is_dir)
            names = below.split("/")
            if is_passed_over(child.name, is_folder=is_folder):
                markers.add(below)
            elif is_folder:
                first = pattern[: len(names)]
                if "**" in first or (len(first) < len(pattern) and matches(names, first)):
                    real = os.path.realpath(child.path)
                    if real not in above:  # a link that forms a loop is not followed
                        _collect(child.path, f"{below}/", pattern, above | {real}, entries, markers)
            elif matches(names, pattern):
                # A link that leads nowhere and a pipe are listed, so that whoever reads them names them.
                is_file = _leads_to(child.is_file)
                entries[below] = _entry(child.stat(), below) if is_file else Entry(below, 0, "", 0.0)
            elif child.name.endswith(".json"):
                markers.add(below)
