"""Storage options: a mapping, or a file system of fsspec whose options are taken. Some values stand for variables.

Options are sent to workers unresolved. A variable is read where a client is created, and its value is stored nowhere
else.
"""

from collections.abc import Mapping
from typing import Protocol, TypeAlias, runtime_checkable

from raysp.errors import SpecError


@runtime_checkable
class FileSystem(Protocol):
    """A file system of fsspec, such as `s3fs.S3FileSystem`: the arguments that it was made with."""

    storage_args: tuple[object, ...]
    storage_options: Mapping[str, object]


GivenOptions: TypeAlias = Mapping[str, object] | FileSystem
"""Values that functions accept as `storage_options`."""


def options_of(given: GivenOptions) -> Mapping[str, object]:
    """Return storage options as a mapping.

    Raises:
        SpecError: a file system was made with positional arguments, which have no name.
    """
    if isinstance(given, dict) or not isinstance(given, FileSystem):  # the first check is quick
        return given
    if given.storage_args:
        raise SpecError(
            f"storage_options: a {type(given).__name__} made with positional arguments; name them, as in "
            f"{type(given).__name__}(anon=True)"
        )
    return given.storage_options


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
