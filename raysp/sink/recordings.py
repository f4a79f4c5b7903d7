"""Which files the rows of a label shard were made of, where they were read by path.

A shard's own identity says nothing of the files that its rows name. So the version of each (size, and etag or
modification time) is staged with its row, compared when the label shard is made, and kept with it: as a short hash a
row in the Parquet metadata, where no reader of labels sees it and no further file has to be kept in step.
"""

import base64
import hashlib
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.corpus.shards import Piece
from raysp.errors import RunError
from raysp.ops.rows import CHANGED

RECORDING, VERSION = "recording", "version"
"""Columns of staged results: path below its root and version of the file that was read; null where none was."""
HASH_BYTES = 3  # a change is overlooked by `verify` once in 16 million; what is compared at the commit is not hashed
SHOWN_ROWS = 3

Versions = Callable[[Collection[str]], Mapping[str, str]]
"""Gives the current versions of files by path; one that is gone, or cannot be asked for, is absent."""


class ChangedRecordingsError(RunError):
    """Files were replaced after rows were labelled from them; their pieces are no longer staged."""

    def __init__(self, message: str, shard: str, pieces: tuple[Piece, ...]) -> None:
        super().__init__(message)
        self.shard = shard
        self.pieces = pieces

    def __reduce__(self) -> tuple[type["ChangedRecordingsError"], tuple[str, str, tuple[Piece, ...]]]:
        """Keep all arguments when the error crosses a process."""
        return type(self), (str(self), self.shard, self.pieces)


def changed_rows(staged: pa.Table, versions: Versions) -> list[tuple[int, str]]:
    """Return the rows whose file is another by now, each with its path; a file that is gone has not changed.

    Raises:
        StoreError: the versions cannot be found out.
    """
    read = staged.select(["row", RECORDING, VERSION]).filter(staged.column(RECORDING).is_valid())
    if read.num_rows == 0:
        return []
    rows, paths, read_versions = (cast("list[Any]", read.column(name).to_pylist()) for name in read.column_names)
    current = versions(set(paths))
    triples = zip(rows, paths, read_versions, strict=True)
    return sorted((row, path) for row, path, was in triples if was == CHANGED or current.get(path, was) != was)


def asked_once(versions: Versions) -> Versions:
    """Return the same, which asks for the version of a file once."""
    known: dict[str, str | None] = {}

    def ask(paths: Collection[str]) -> Mapping[str, str]:
        if new := {path for path in paths if path not in known}:
            known.update({**dict.fromkeys(new), **versions(new)})
        return {path: version for path in paths if (version := known[path]) is not None}

    return ask


def shown(changed: Sequence[tuple[int, str]]) -> str:
    """Return the first of some rows and their paths in words."""
    first = ", ".join(f"row {row} ({path!r:.80})" for row, path in changed[:SHOWN_ROWS])
    more = f" and {len(changed) - SHOWN_ROWS} more" if len(changed) > SHOWN_ROWS else ""
    return first + more


@dataclass
class Hashes:
    """Hashes of the versions of a label shard's files, one a row; zero where none was read."""

    by_row: npt.NDArray[np.uint8]  # (rows, HASH_BYTES)

    @classmethod
    def of_none(cls, num_rows: int) -> "Hashes":
        """Return those of rows that were not read by path."""
        return cls(np.zeros((num_rows, HASH_BYTES), np.uint8))

    @classmethod
    def decode(cls, text: str, num_rows: int) -> "Hashes":
        """Read what `encode` wrote.

        Raises:
            ValueError: it did not.
        """
        if not text:
            return cls.of_none(num_rows)
        try:
            raw = zlib.decompress(base64.b64decode(text, validate=True))
        except zlib.error as error:
            raise ValueError(str(error)) from None
        return cls(np.frombuffer(raw, np.uint8).reshape(num_rows, HASH_BYTES).copy())

    def encode(self) -> str:
        """Return them as a text; empty where nothing was read by path."""
        if not self.by_row.any():
            return ""
        return base64.b64encode(zlib.compress(self.by_row.tobytes(), 1)).decode()

    def add(self, staged: pa.Table) -> None:
        """Take over the versions of staged rows."""
        if VERSION not in staged.column_names:
            return
        rows = staged.column("row").to_numpy()
        self.by_row[rows] = 0
        read = np.asarray(staged.column(VERSION).is_valid())
        if read.any():
            self.by_row[rows[read]] = _hashes(cast("list[str]", staged.column(VERSION).drop_null().to_pylist()))

    @property
    def is_read(self) -> npt.NDArray[np.bool_]:
        """Which rows were read by path."""
        return np.asarray(self.by_row.any(1))

    def differ(self, rows: Sequence[int], versions: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return which of these rows have another version."""
        return np.asarray((self.by_row[list(rows)] != _hashes(versions)).any(1))


def _hashes(versions: Iterable[str]) -> npt.NDArray[np.uint8]:
    known: dict[str, bytes] = {}
    raw = b"".join(known.setdefault(one, _hash(one)) for one in versions)
    return np.frombuffer(raw, np.uint8).reshape(-1, HASH_BYTES)


def _hash(version: str) -> bytes:
    found = hashlib.blake2b(version.encode(), digest_size=HASH_BYTES).digest()
    return found if any(found) else b"\1" * HASH_BYTES
