"""Storage options and glob patterns of urls, as users write them.

Options are a mapping, or a file system of fsspec whose options are taken. They are sent to workers unresolved. A
variable is read where a client is created, and its value is stored nowhere else.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from raysp.errors import SpecError


@runtime_checkable
class FileSystem(Protocol):
    """A file system of fsspec, such as `s3fs.S3FileSystem`: the arguments that it was made with."""

    storage_args: tuple[object, ...]
    storage_options: Mapping[str, object]


GivenOptions: TypeAlias = Mapping[str, object] | FileSystem
"""Values that functions accept as `storage_options`."""


def options_of(options: GivenOptions) -> Mapping[str, object]:
    """Return storage options as a mapping.

    Raises:
        SpecError: a file system was made with positional arguments, which have no name.
    """
    if isinstance(options, dict) or not isinstance(options, FileSystem):  # the first check is quick
        return options
    if options.storage_args:
        raise SpecError(
            f"storage_options: a {type(options).__name__} made with positional arguments; name them, as in "
            f"{type(options).__name__}(anon=True)"
        )
    return options.storage_options


def resolve(options: Mapping[str, object]) -> dict[str, object]:
    """Replace each value that has a method `value` with the result of that method, at any depth."""
    return {key: _resolved(value) for key, value in options.items()}


def _resolved(value: object) -> object:
    if isinstance(value, Mapping):
        return resolve(value)
    if isinstance(value, list | tuple):
        return tuple(_resolved(item) for item in value)
    look_up = getattr(value, "value", None)
    return look_up() if callable(look_up) else value


_WILDCARD = re.compile(r"[*?\[]")


def split_glob(path: str) -> tuple[str, str]:
    """Split before the first component with a wildcard: ("a/b", "*.parquet"). Without one the second part is empty."""
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    return "/".join(parts[:first]), "/".join(parts[first:])


def literal_prefix(pattern: str) -> str:
    """Return the literal prefix of all paths that match."""
    return _WILDCARD.split(pattern, maxsplit=1)[0]


def is_listed(path: str, pattern: str) -> bool:
    """Return whether `path` matches `pattern` and is not passed over."""
    *folders, name = path.split("/")
    if not name or is_passed_over(name) or any(is_passed_over(folder, is_folder=True) for folder in folders):
        return False
    return matches([*folders, name], pattern.split("/"))


def marker(path: str) -> str | None:
    """Return the part of an unlisted path that may mark the format of a folder; None for the others.

    It ends with the first folder or file that listings pass over, such as `_delta_log`; a JSON file is whole.
    """
    parts = path.split("/")
    for number, name in enumerate(parts, 1):
        if is_passed_over(name, is_folder=number < len(parts)):
            return "/".join(parts[:number])
    return path if path.endswith(".json") else None


def is_passed_over(name: str, *, is_folder: bool = False) -> bool:
    """Return whether listings pass over a name: `_temporary/`, `.raysp/`, `._a.wav`, `_SUCCESS`.

    Files that begin with `_` and have a suffix may be recordings, and are listed; planning passes over those that
    would be shards.
    """
    if name[:1] == "." or is_folder:
        return name[:1] in (".", "_")
    return name[:1] == "_" and "." not in name


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path's components match a pattern's. `**` matches zero or more folders."""
    if not pattern or not names:
        return not pattern and not names
    if pattern[0] == "**":
        return any(matches(names[skipped:], pattern[1:] or ("*",)) for skipped in range(len(names)))
    return fnmatch.fnmatchcase(names[0], pattern[0]) and matches(names[1:], pattern[1:])
