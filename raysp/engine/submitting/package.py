"""The package of a job: the folder of the pipeline file, without files that the job does not need."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from raysp.errors import SpecError
from raysp.sink import layout
from raysp.words import count, megabytes

IGNORE_FILE = ".raysignore"
"""File with patterns, as in .gitignore, of files that are not shipped."""
_IGNORE_FILES = (".gitignore", IGNORE_FILE)
MAX_FILES = 10_000
LARGEST = 5
"""Number of files named in the message on a package that is too large."""
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""Time of all files of a package, so that equal files make equal packages. Zip files know no earlier time."""


@dataclass(frozen=True)
class PackageFile:
    """A file of a package: its name relative to the package, its path here and its size."""

    name: str
    path: Path
    num_bytes: int


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
    and what the files .gitignore and .raysignore of a folder list; the latter can take in again what the former leaves
    out (`!name`).

    Args:
        folder: path of the folder, without links.
        max_bytes: limit of the sizes of all files.
        more: further files, which are placed into the folder.

    Raises:
        SpecError: the package is too large, or a folder cannot be read.
    """
    files = [PackageFile(path.name, path, path.stat().st_size) for path in more]
    num_bytes = sum(file.num_bytes for file in files)
    for file in _walk(folder, folder, (), frozenset()):
        files.append(file)
        num_bytes += file.num_bytes
        if len(files) > MAX_FILES:
            raise _too_large(folder, files, f"more than {MAX_FILES:,} files", f"the limit is {MAX_FILES:,} files")
    if num_bytes > max_bytes:
        found = f"{megabytes(num_bytes)} in {count(len(files), 'file')}"
        raise _too_large(folder, files, found, f"the limit is {megabytes(max_bytes)} (--max-package-mb)")
    return Package(folder, tuple(sorted(files, key=lambda file: file.name)))


def _too_large(folder: Path, files: Sequence[PackageFile], found: str, limit: str) -> SpecError:
    largest = sorted(files, key=lambda file: -file.num_bytes)[:LARGEST]
    listed = ", ".join(f"{file.name} ({megabytes(file.num_bytes)})" for file in largest)
    return SpecError(
        f"{folder}: the pipeline file and its neighbours come to {found}; {limit}. Largest: {listed}. List files that "
        f"the job does not need in {folder / IGNORE_FILE} (patterns as in .gitignore), or move the pipeline file to a "
        "folder of its own"
    )


def _walk(
    top: Path, folder: Path, ignored: tuple[tuple[Path, GitIgnoreSpec], ...], above: frozenset[str]
) -> Iterator[PackageFile]:
    """Yield the files to ship of a folder; links are followed, except into a folder above."""
    real = os.path.realpath(folder)
    if real in above or (folder != top and (folder / layout.HOME).is_dir()):
        return
    ignored = (*ignored, (folder, _patterns(folder)))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SpecError(f"{folder}: cannot be read for the package of the job ({error.strerror})") from error
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name == "__pycache__" or _is_ignored(path, entry.is_dir(), ignored):
            continue
        if entry.is_dir():
            yield from _walk(top, path, ignored, above | {real})
        elif entry.is_file():
            yield PackageFile(path.relative_to(top).as_posix(), path, entry.stat().st_size)


def _patterns(folder: Path) -> GitIgnoreSpec:
    lines: list[str] = []
    for name in _IGNORE_FILES:
        if (file := folder / name).is_file():
            lines += file.read_text(errors="replace").splitlines()
    return GitIgnoreSpec.from_lines(lines)


def _is_ignored(path: Path, is_folder: bool, ignored: tuple[tuple[Path, GitIgnoreSpec], ...]) -> bool:
    """Return whether a path is left out; the patterns of the innermost folder that mentions it decide."""
    for folder, patterns in reversed(ignored):
        found = patterns.check_file(f"{path.relative_to(folder).as_posix()}{'/' if is_folder else ''}").include
        if found is not None:
            return found
    return False
