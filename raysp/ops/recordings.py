"""The recordings of a piece, as decoding gets them: bytes that lie in the table, or files that its paths name."""

from typing import Any

import pyarrow as pa

from raysp.audio import Excerpt, SupportsRead
from raysp.errors import AudioError
from raysp.io.audio_root import AudioRoot

OFFSET, DURATION = "offset", "duration"
"""Columns of a manifest: the part of a file that a row means, in seconds; null: from its start, to its end."""


class Recordings:
    """Recordings by the number of their row; nothing is read before it is asked for.

    Args:
        rows: source columns; the audio is a struct with `bytes` and perhaps `path`, or bytes.
        audio: the column.
        root: where paths may lead; None: nowhere.
        is_manifest: whether `OFFSET` and `DURATION` say which part of a file is meant.
    """

    def __init__(self, rows: pa.Table, audio: str, root: AudioRoot | None = None, *, is_manifest: bool = False) -> None:
        self.column = rows.column(audio)
        self.root = root
        self.with_path = pa.types.is_struct(self.column.type)
        self.offsets: list[float | None] = rows.column(OFFSET).to_pylist() if is_manifest else []
        self.durations: list[float | None] = rows.column(DURATION).to_pylist() if is_manifest else []

    def get(self, index: int) -> memoryview | SupportsRead:
        """Give the stored bytes without a copy, or an open file.

        Raises:
            AudioError: `no_audio`, `path_not_allowed` or `not_found`.
            StoreError: the storage fails.
        """
        value: Any = self.column[index]
        if self.with_path and value.is_valid:
            path = value["path"].as_py() if "path" in value else None
            value = value["bytes"]
            if path and not (value.is_valid and len(value.as_buffer())):
                return self._open(path)
        if not value.is_valid:
            raise AudioError("no_audio", "null; expected the bytes of an audio file")
        return memoryview(value.as_buffer())

    def excerpt(self, index: int) -> Excerpt:
        """Give a recording with the part of it that is meant; raises as `get` does."""
        if not self.offsets:
            return Excerpt(self.get(index))
        return Excerpt(self.get(index), self.offsets[index] or 0.0, self.durations[index])

    def seconds(self, index: int) -> float | None:
        """Give the length that a manifest claims."""
        return self.durations[index] if self.durations else None

    def _open(self, path: str) -> SupportsRead:
        if self.root is None:
            raise AudioError(
                "path_not_allowed",
                f"no bytes, only the path {path!r:.200}; embed the audio, or allow a folder by source.audio_root",
            )
        return self.root.open(path)
