"""Names and shapes of the arrays in a `model.bin` of CTranslate2, read without their values.

The file is a list of named arrays behind the name of the architecture, as the package's `ModelSpec` writes it. What a
file announces is compared with its size, so a shortened one is refused before the package reads it.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from raysp.errors import CheckpointError

FORMATS = range(3, 7)
"""Versions of the format whose arrays are stored alike."""
MOST_ARRAYS = 100_000
MOST_DIMENSIONS = 8
ITEMS = {0: ("float32", 4), 1: ("int8", 1), 2: ("int16", 2), 3: ("int32", 4), 4: ("float16", 2), 5: ("bfloat16", 2)}
"""Names and bytes of data types by their numbers."""


@dataclass(frozen=True)
class StoredArray:
    """An array of a file."""

    shape: tuple[int, ...]
    dtype: str
    num_bytes: int


@dataclass(frozen=True)
class StoredModel:
    """The arrays of a file by name, and the architecture that it names, such as "WhisperSpec"."""

    architecture: str
    arrays: Mapping[str, StoredArray]


def read_stored(file: Path) -> StoredModel:
    """Return the architecture and the arrays of a file.

    Raises:
        CheckpointError: the file is damaged, or of another format.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as content:
            return _read(content, size)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: no whole model of CTranslate2 ({error}); copy or convert the model again"
        ) from None


def _read(content: BinaryIO, size: int) -> StoredModel:
    [version] = _numbers(content, "<I")
    if version not in FORMATS:
        raise ValueError(f"its format is {version}, expected {FORMATS[0]} to {FORMATS[-1]}")
    architecture = _name(content)
    _revision, count = _numbers(content, "<II")
    if count > MOST_ARRAYS:
        raise ValueError(f"it announces {count:,} arrays, expected at most {MOST_ARRAYS:,}")
    arrays = dict(_array(content, size) for _ in range(count))
    return StoredModel(architecture, arrays)


def _array(content: BinaryIO, size: int) -> tuple[str, StoredArray]:
    name = _name(content)
    [rank] = _numbers(content, "<B")
    if rank > MOST_DIMENSIONS:
        raise ValueError(f"{name} has {rank} dimensions, expected at most {MOST_DIMENSIONS}")
    *shape, kind, num_bytes = _numbers(content, f"<{rank}IBI")
    dtype, item = ITEMS.get(kind, ("", 0))
    expected = item
    for length in shape:
        expected *= length
    if expected != num_bytes or content.tell() + num_bytes > size:
        raise ValueError(f"{name}, of shape {tuple(shape)}, announces {num_bytes} bytes and does not have them")
    content.seek(num_bytes, 1)
    return name, StoredArray(tuple(shape), dtype, num_bytes)


def _name(content: BinaryIO) -> str:
    [length] = _numbers(content, "<H")
    return content.read(length).decode().rstrip("\0")


def _numbers(content: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, content.read(struct.calcsize(form)))
