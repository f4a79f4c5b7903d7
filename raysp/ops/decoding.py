"""Turn a piece of a shard into blocks of decoded recordings of like length."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

from raysp.audio import TooLong, decode, read_header
from raysp.errors import AudioError
from raysp.ops.blocks import cut_blocks
from raysp.ops.keeping import Keeping
from raysp.ops.rows import OK, WAVE, Fate, fates_table


class Decoding:
    """Decode the recordings of a piece, block by block.

    Args:
        audio: the column that holds them.
        sample_rate: of the model, in Hz.
        channel: "mean" or an index.
        max_seconds: longer ones are skipped.
        block_seconds: audio in a block.
        before: judges rows by their source columns, before anything is decoded.
        after: judges rows that were decoded.
    """

    def __init__(
        self,
        *,
        audio: str,
        sample_rate: int,
        channel: Literal["mean"] | int = "mean",
        max_seconds: float = 43200,
        block_seconds: float,
        before: Sequence[Keeping] = (),
        after: Sequence[Keeping] = (),
    ) -> None:
        self.audio = audio
        self.sample_rate = sample_rate
        self.channel = channel
        self.max_seconds = max_seconds
        self.block_seconds = block_seconds
        self.before = before
        self.after = after

    def __call__(self, rows: pa.Table, first: int) -> tuple[int, Iterator[pa.Table]]:
        """Order a piece by length and decode it.

        Args:
            rows: the piece's source columns in row order; the audio column is a struct with `bytes`, or bytes.
            first: number of its first row in the shard.

        Returns:
            The number of blocks, known from the headers alone, and an iterator of as many tables: `ROW_SCHEMA` and
            `wave`, every row of the piece in one of them.
        """
        fates = [Fate(first + i) for i in range(rows.num_rows)]
        recordings = _Recordings(rows.column(self.audio))
        others = rows.drop_columns([self.audio])
        for keep in self.before:
            keep(fates, others)
        seconds = [self._claimed_seconds(recordings, i) if fate.status == OK else 0.0 for i, fate in enumerate(fates)]
        blocks = cut_blocks(seconds, block_seconds=self.block_seconds, bytes_per_second=4 * self.sample_rate)
        return len(blocks), (self._block(fates, recordings, others, block) for block in blocks)

    def _claimed_seconds(self, recordings: "_Recordings", index: int) -> float:
        try:
            header = read_header(recordings.get(index))
        except AudioError:
            return 0.0  # decoding says why
        return min(header.seconds, self.max_seconds)

    def _block(
        self, fates: Sequence[Fate], recordings: "_Recordings", others: pa.Table, indexes: Sequence[int]
    ) -> pa.Table:
        chosen = [fates[i] for i in indexes]
        waves = [self._decode(fate, recordings, i) for fate, i in zip(chosen, indexes, strict=True)]
        if self.after:
            columns = others.take(pa.array(indexes, pa.int64()))
            for keep in self.after:
                keep(chosen, columns)
        kept = [wave if fate.status == OK else None for wave, fate in zip(waves, chosen, strict=True)]
        return with_waves(fates_table(chosen), kept)

    def _decode(self, fate: Fate, recordings: "_Recordings", index: int) -> np.ndarray | None:
        if fate.status != OK:
            return None
        try:
            wave = decode(
                recordings.get(index),
                sample_rate=self.sample_rate,
                channel=self.channel,
                max_seconds=self.max_seconds,
            )
        except AudioError as error:
            fate.fail(error.error_type, str(error))
            return None
        except TooLong as error:
            fate.skip("too_long", str(error))
            return None
        fate.seconds = len(wave) / self.sample_rate
        return wave


class _Recordings:
    """The bytes of each recording, without a copy."""

    def __init__(self, column: "pa.ChunkedArray[Any]") -> None:
        kind = column.type
        self.with_path = pa.types.is_struct(kind)
        self.column = column

    def get(self, index: int) -> memoryview | None:
        """Give the stored bytes.

        Raises:
            AudioError: `no_audio`, or `path_not_allowed` where only a path is given.
        """
        value = self.column[index]
        if self.with_path and value.is_valid:
            path = value["path"].as_py() if "path" in value else None
            value = value["bytes"]
            if path and not (value.is_valid and len(value.as_buffer())):
                raise AudioError("path_not_allowed", f"no bytes, only the path {path!r:.200}; embed the audio")
        if not value.is_valid:
            raise AudioError("no_audio", "null; expected the bytes of an audio file")
        return memoryview(value.as_buffer())


def with_waves(table: pa.Table, waves: Sequence[np.ndarray | None]) -> pa.Table:
    """Add the recordings to a table as one contiguous column: int16 where all of them are, else float32."""
    given = [wave for wave in waves if wave is not None]
    dtype = np.dtype(np.int16) if given and all(w.dtype == np.int16 for w in given) else np.dtype(np.float32)
    lengths = np.array([0 if w is None else len(w) for w in waves], np.int64)
    offsets = np.zeros(len(waves) + 1, np.int64)
    np.cumsum(lengths * dtype.itemsize, out=offsets[1:])
    values = np.empty(int(lengths.sum()), dtype)
    start = 0
    for wave in given:
        part = values[start : start + len(wave)]
        if wave.dtype == dtype:
            part[:] = wave
        else:
            np.multiply(wave, np.float32(1 / 32768), out=part)
        start += len(wave)
    valid = np.packbits(np.array([w is not None for w in waves], bool), bitorder="little").tobytes()
    buffers: list[pa.Buffer | None] = [
        pa.py_buffer(valid),
        pa.py_buffer(offsets.data),
        pa.py_buffer(values.data),
    ]
    column = pa.Array.from_buffers(pa.large_binary(), len(waves), buffers)
    field = pa.field(WAVE, pa.large_binary(), metadata={"dtype": dtype.name})
    return table.append_column(field, column)


def waves_of(table: pa.Table) -> list[np.ndarray | None]:
    """Give each row's recording, as `with_waves` took it, without a copy."""
    field = table.schema.field(WAVE)
    dtype = np.dtype((field.metadata or {})[b"dtype"].decode())
    waves: list[np.ndarray | None] = []
    for chunk in table.column(WAVE).chunks:
        _, offsets, values = cast("list[Any]", chunk.buffers())
        edges = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1] // dtype.itemsize
        samples = np.frombuffer(values, dtype) if values is not None else np.empty(0, dtype)
        valid = chunk.is_valid().to_pylist()
        waves += [samples[a:b] if ok else None for a, b, ok in zip(edges, edges[1:], valid, strict=False)]
    return waves
