"""Versions of the files that rows of a label shard were made from, for rows read by path.

A shard's own identity does not cover the files that its rows name. So the version of each file (size, and etag or
modification time) is staged with its row, and the label shard keeps a short hash of it per row, for `raysp verify`. The
hashes are in the Parquet metadata: readers of labels do not see them, and no second file has to stay consistent with
the label shard.
"""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp import bounds
from raysp.columns import RECORDING_COLUMNS

RECORDING, VERSION = RECORDING_COLUMNS
"""Columns of staged results: path below the root, and version of the file that was read; null if no file was read."""
HASH_BYTES = 3  # `verify` misses one change in 16 million
SHOWN_ROWS = 3


def shown(changed: Sequence[tuple[int, str]]) -> str:
    """Return the first rows and their paths as text."""
    first = ", ".join(f"row {row} ({path!r:.80})" for row, path in changed[:SHOWN_ROWS])
    more = f" and {len(changed) - SHOWN_ROWS} more" if len(changed) > SHOWN_ROWS else ""
    return first + more


@dataclass
class Hashes:
    """Hashes of the versions of a label shard's files, one per row; zero for rows not read by path."""

    by_row: npt.NDArray[np.uint8]  # (rows, HASH_BYTES)

    @classmethod
    def zeros(cls, num_rows: int) -> "Hashes":
        """Return the hashes of rows that were not read by path."""
        return cls(np.zeros((num_rows, HASH_BYTES), np.uint8))

    @classmethod
    def decode(cls, text: str, num_rows: int) -> "Hashes":
        """Return the hashes from the text of `encode`.

        Raises:
            ValueError: the text is not from `encode`.
        """
        if not text:
            return cls.zeros(num_rows)
        raw = bounds.unzipped(base64.b64decode(text, validate=True), num_rows * HASH_BYTES)
        # A copy, since `add` writes and the view of the bytes is read-only.
        return cls(np.frombuffer(raw, np.uint8).reshape(num_rows, HASH_BYTES).copy())

    def encode(self) -> str:
        """Return the hashes as text; empty if no row was read by path."""
        if not self.by_row.any():
            return ""
        return base64.b64encode(zlib.compress(self.by_row.tobytes(), 1)).decode()

    def add(self, staged: pa.Table) -> None:
        """Set the hashes of staged rows."""
        if VERSION not in staged.column_names:
            return
        rows = staged.column("row").to_numpy()
        # A row that is labelled again may no longer be read by path.
        self.by_row[rows] = 0
        read = np.asarray(staged.column(VERSION).is_valid())
        if read.any():
            self.by_row[rows[read]] = _hashes(cast("list[str]", staged.column(VERSION).drop_null().to_pylist()))

    @property
    def is_read(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows that were read by path."""
        return np.asarray(self.by_row.any(1))

    def differ(self, rows: Sequence[int], versions: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows whose recorded version differs."""
        return np.asarray((self.by_row[list(rows)] != _hashes(versions)).any(1))


def _hashes(versions: Iterable[str]) -> npt.NDArray[np.uint8]:
    known: dict[str, bytes] = {}
    raw = b"".join(known.setdefault(one, _hash(one)) for one in versions)
    return np.frombuffer(raw, np.uint8).reshape(-1, HASH_BYTES)


def _hash(version: str) -> bytes:
    found = hashlib.blake2b(version.encode(), digest_size=HASH_BYTES).digest()
    # All zeros mean that a row was not read by path.
    return found if any(found) else b"\1" * HASH_BYTES
