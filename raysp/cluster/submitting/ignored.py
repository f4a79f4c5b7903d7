"""Files that a job does not take along: those that git ignores, and those that .raysignore lists."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pathspec import GitIgnoreSpec

from raysp import bounds
from raysp.errors import SpecError

IGNORE_FILE = ".raysignore"
"""File with patterns, as in .gitignore, of files that are not shipped."""
GIT_IGNORE_FILE = ".gitignore"
GIT_SECONDS = 60.0


@dataclass(frozen=True)
class _Patterns:
    """Patterns of an ignore file, which is read once; empty if the folder has no such file."""

    folder: Path
    name: str

    @cached_property
    def spec(self) -> GitIgnoreSpec:
        file = self.folder / self.name
        return GitIgnoreSpec.from_lines(_lines(file) if file.is_file() else [])

    def includes(self, path: Path, *, is_folder: bool) -> bool | None:
        """Return whether a path is ignored: False if a pattern `!name` includes it, None if no pattern matches it."""
        return self.spec.check_file(f"{path.relative_to(self.folder).as_posix()}{'/' if is_folder else ''}").include


@dataclass(frozen=True)
class Ignored:
    """Decision which files below a folder are ignored.

    The ignore file of the innermost folder that mentions a file decides. In a working tree of git, git itself decides
    on files that no .raysignore mentions. Where git does not answer, the .gitignore files up to its top do.
    """

    patterns: tuple[_Patterns, ...] = ()
    by_git: frozenset[str] | None = None
    """Absolute paths that git ignores; None: git was not asked, or does not answer."""

    def below(self, folder: Path, *, is_new: bool) -> "Ignored":
        """Return the decision for the entries of a folder.

        Args:
            folder: the folder.
            is_new: whether git is asked: it is the first folder, a link, or a working tree of its own.
        """
        asked = replace(self, by_git=_ignored_by_git(folder)) if is_new else self
        of_git: list[Path] = []
        if asked.by_git is None:
            of_git = [*(_tree_above(folder) if is_new else ()), folder]
        found = [*(_Patterns(one, GIT_IGNORE_FILE) for one in of_git), _Patterns(folder, IGNORE_FILE)]
        return replace(asked, patterns=(*asked.patterns, *found))

    def __call__(self, path: Path, *, is_folder: bool) -> bool:
        """Return whether a path is left out."""
        for one in reversed(self.patterns):
            if path.is_relative_to(one.folder) and (found := one.includes(path, is_folder=is_folder)) is not None:
                return found
        return self.by_git is not None and str(path) in self.by_git

    def is_named(self, path: Path) -> bool:
        """Return whether a .raysignore includes a file by `!name`."""
        own = (one for one in self.patterns if one.name == IGNORE_FILE and path.is_relative_to(one.folder))
        return any(one.includes(path, is_folder=False) is False for one in own)


def _lines(file: Path) -> list[str]:
    """Return the lines of an ignore file in UTF-8 or, with a byte order mark, UTF-16.

    Raises:
        SpecError: it cannot be read, or has another encoding.
    """
    try:
        data = bounds.read_file(file, bounds.MOST_IGNORE_BYTES)
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return data.decode(encoding).splitlines()
    except OSError as error:
        raise SpecError(f"{file}: cannot be read ({error.strerror}); it decides which files are shipped") from error
    except UnicodeError as error:
        raise SpecError(f"{file}: {error}; expected UTF-8: save it in this encoding") from error
    except bounds.TooLargeError as error:
        raise SpecError(f"{file}: {error} in a list of patterns") from error


def _ignored_by_git(folder: Path) -> frozenset[str] | None:
    """Return the paths below a folder that git ignores, collapsed to folders; None outside of a working tree."""
    if not any((one / ".git").exists() for one in (folder, *folder.resolve().parents)):
        return None
    command = ["git", "-C", str(folder), "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    names = filter(None, done.stdout.split(b"\0"))
    return frozenset(str(folder / os.fsdecode(name.rstrip(b"/"))) for name in names)


def _tree_above(folder: Path) -> Iterator[Path]:
    """Yield the folders above, from the top of a working tree of git down; none outside of one."""
    parents = [*folder.parents]
    if (top := next((place for place, one in enumerate(parents) if (one / ".git").exists()), None)) is not None:
        yield from reversed(parents[: top + 1])
