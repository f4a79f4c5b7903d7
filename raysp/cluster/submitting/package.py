"""The package of a job: the folder of the pipeline file, without files that the job does not need."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysp.cluster.submitting.credentials import looks_secret
from raysp.cluster.submitting.ignored import IGNORE_FILE, Ignored
from raysp.errors import SpecError
from raysp.sink import layout
from raysp.words import count, megabytes, printable

MAX_FILES = 10_000
LARGEST = 5
"""Number of files named in the message on a package that is too large, or has files that look like keys."""
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""Time of all files of a package, so that equal files make equal packages. Zip files know no earlier time."""


@dataclass(frozen=True)
class PackageFile:
    """A file of a package: its name relative to the package, its path here and its size."""

    name: str
    path: Path
    num_bytes: int
    is_named: bool = False
    """Whether .raysignore takes it in by name."""


@dataclass(frozen=True)
class Package:
    """The files that a job takes along."""

    folder: Path
    """Path without links."""
    files: tuple[PackageFile, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files)

    def holds(self, path: Path) -> bool:
        """Return whether a file, or a file of a folder, is shipped."""
        if (name := self.name_of(path)) is None:
            return False
        return any(file.name == name or file.name.startswith(f"{name}/") for file in self.files)

    def name_of(self, path: Path) -> str | None:
        """Return the name of a file or folder relative to the package; None if it is elsewhere."""
        for one in (path, path.parent.resolve() / path.name):  # the folder may be named by a link
            if one.is_relative_to(self.folder):
                return one.relative_to(self.folder).as_posix()
        return None

    def write(self, path: Path) -> None:
        """Write the package as a zip file. Equal files make equal packages, which a cluster stores once.

        Raises:
            SpecError: a file cannot be read.
        """
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
            for file in self.files:
                try:
                    content = file.path.read_bytes()
                except OSError as error:
                    raise SpecError(
                        f"{file.path}: cannot be read for the package of the job ({error.strerror}); list it in "
                        f"{self.folder / IGNORE_FILE} if the job does not need it"
                    ) from error
                entry = zipfile.ZipInfo(file.name, _OLDEST)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                written.writestr(entry, content)


def collect(folder: Path, max_bytes: int, more: Sequence[Path] = ()) -> Package:
    """Return the package of a folder.

    Left out are files and folders whose names begin with a dot (such as .git, .venv and .env), `__pycache__`, sinks,
    what git ignores, and what the file .raysignore of a folder lists; it can take in again what git ignores (`!name`).

    Args:
        folder: path of the folder, without links.
        max_bytes: limit of the sizes of all files.
        more: further files, which are placed into the folder.

    Raises:
        SpecError: the package is too large, a folder cannot be read, a name is not UTF-8, or a file looks like a key
            and is not named in .raysignore.
    """
    files = [PackageFile(path.name, path, path.stat().st_size) for path in more]
    num_bytes = sum(file.num_bytes for file in files)
    for file in _walk(folder, folder, Ignored(), frozenset()):
        files.append(file)
        num_bytes += file.num_bytes
        if len(files) > MAX_FILES:
            raise _too_large(folder, files, f"more than {MAX_FILES:,} files", f"the limit is {MAX_FILES:,} files")
    if num_bytes > max_bytes:
        found = f"{megabytes(num_bytes)} in {count(len(files), 'file')}"
        raise _too_large(folder, files, found, f"the limit is {megabytes(max_bytes)} (--max-package-mb)")
    _refuse_secrets(folder, files)
    return Package(folder, tuple(sorted(files, key=lambda file: file.name)))


def _too_large(folder: Path, files: Sequence[PackageFile], found: str, limit: str) -> SpecError:
    largest = sorted(files, key=lambda file: -file.num_bytes)[:LARGEST]
    listed = ", ".join(f"{file.name} ({megabytes(file.num_bytes)})" for file in largest)
    return SpecError(
        f"{folder}: the pipeline file and its neighbours come to {found}; {limit}. Largest: {listed}. List files that "
        f"the job does not need in {folder / IGNORE_FILE} (patterns as in .gitignore), or move the pipeline file to a "
        "folder of its own"
    )


def _refuse_secrets(folder: Path, files: Sequence[PackageFile]) -> None:
    """Raise if a file looks like a key and is not named: everybody who may use the cluster can read the package."""
    found = [file.name for file in files if not file.is_named and looks_secret(file.path, file.num_bytes)]
    if found:
        more = f" and {len(found) - LARGEST:,} more" if len(found) > LARGEST else ""
        raise SpecError(
            f"{folder}: would be shipped, and look like keys or credentials: {', '.join(found[:LARGEST])}{more}. List "
            f"them in {folder / IGNORE_FILE}, or, if the job needs one, name it there with an exclamation mark "
            f"(!{found[0]})"
        )


def _walk(top: Path, folder: Path, ignored: Ignored, above: frozenset[str]) -> Iterator[PackageFile]:
    """Yield the files to ship of a folder; links are followed, except into a folder above."""
    real = os.path.realpath(folder)
    if real in above or (folder != top and (folder / layout.HOME).is_dir()):
        return
    ignored = ignored.below(folder, is_new=folder == top or folder.is_symlink() or (folder / ".git").exists())
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SpecError(f"{folder}: cannot be read for the package of the job ({error.strerror})") from error
    for entry in entries:
        path = folder / entry.name
        is_folder = path.is_dir()
        if entry.name.startswith(".") or entry.name == "__pycache__" or ignored(path, is_folder=is_folder):
            continue
        if is_folder:
            yield from _walk(top, path, ignored, above | {real})
        elif path.is_file():  # neither a link that leads nowhere nor a socket
            name = _utf8(path.relative_to(top), folder)
            yield PackageFile(name, path, entry.stat().st_size, ignored.is_named(path))


def _utf8(path: Path, folder: Path) -> str:
    """Return a path as text.

    Raises:
        SpecError: a zip file cannot hold its name.
    """
    name = path.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        pattern = f"*{path.suffix}" if path.suffix.isascii() and path.suffix else "*"
        raise SpecError(
            f"{printable(str(folder))}: the name {os.fsencode(path.name)!r} is not UTF-8, so that the package cannot "
            f"hold it; rename the file, or list it in {IGNORE_FILE} by a pattern such as {pattern}"
        ) from None
    return name
