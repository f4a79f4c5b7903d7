"""Turn a piece of a shard into blocks of decoded recordings of like length."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, cast

import numpy as np
import pyarrow as pa

import raysp.audio as in_process
from raysp.audio import AudioHeader, Channel, Excerpt, Recording, Samples, TooLong
from raysp.errors import AudioError
from raysp.io.audio_root import AudioRoot
from raysp.ops.blocks import cut_blocks
from raysp.ops.keeping import Keeping
from raysp.ops.recordings import Recordings
from raysp.ops.rows import OK, WAVE, Fate, fates_table


class Decoder(Protocol):
    """What decodes: `raysp.audio` itself, or `raysp.audio.isolation.Decoder` in a process of its own."""

    def read_headers(self, recordings: Iterable[Recording | None]) -> Iterator[AudioHeader | AudioError]:
        """Read what recordings claim, in their order."""
        ...

    def decode_all(
        self, excerpts: Iterable[Excerpt], *, sample_rate: int, channel: Channel = "mean", max_seconds: float = 43200
    ) -> Iterator[Samples | AudioError | TooLong]:
        """Decode recordings in their order."""
        ...


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
        decoder: what decodes.
        root: where the paths of recordings may lead; None: nowhere.
        is_manifest: whether the columns `offset` and `duration` say which part of a recording is meant.
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
        decoder: Decoder = in_process,
        root: AudioRoot | None = None,
        is_manifest: bool = False,
    ) -> None:
        self.audio = audio
        self.sample_rate = sample_rate
        self.channel = channel
        self.max_seconds = max_seconds
        self.block_seconds = block_seconds
        self.before = before
        self.after = after
        self.decoder = decoder
        self.root = root
        self.is_manifest = is_manifest

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
        recordings = Recordings(rows, self.audio, self.root, is_manifest=self.is_manifest)
        others = rows.drop_columns([self.audio])
        for keep in self.before:
            keep(fates, others)
        seconds = self._claimed_seconds(recordings, fates)
        blocks = cut_blocks(seconds, block_seconds=self.block_seconds, bytes_per_second=4 * self.sample_rate)
        return len(blocks), (self._block(fates, recordings, others, block) for block in blocks)

    def _claimed_seconds(self, recordings: Recordings, fates: Sequence[Fate]) -> list[float]:
        """Estimate what rows last from the manifest, else from headers; 0 where nothing is known: decoding says why."""
        seconds = [recordings.seconds(i) or 0.0 if fate.status == OK else 0.0 for i, fate in enumerate(fates)]
        asked: list[int] = []

        def unknown() -> Iterator[Recording]:
            for index, fate in enumerate(fates):
                if fate.status == OK and recordings.seconds(index) is None:
                    try:
                        recording = recordings.get(index)
                    except AudioError:
                        continue
                    asked.append(index)
                    yield recording

        for place, header in enumerate(self.decoder.read_headers(unknown())):
            seconds[asked[place]] = 0.0 if isinstance(header, AudioError) else header.seconds
        return [min(s, self.max_seconds) if 0 <= s < math.inf else 0.0 for s in seconds]

    def _block(
        self, fates: Sequence[Fate], recordings: Recordings, others: pa.Table, indexes: Sequence[int]
    ) -> pa.Table:
        chosen = [fates[i] for i in indexes]
        waves = self._decode(chosen, recordings, indexes)
        if self.after:
            columns = others.take(pa.array(indexes, pa.int64()))
            for keep in self.after:
                keep(chosen, columns)
        kept = [wave if fate.status == OK else None for wave, fate in zip(waves, chosen, strict=True)]
        return with_waves(fates_table(chosen), kept)

    def _decode(
        self, fates: Sequence[Fate], recordings: Recordings, indexes: Sequence[int]
    ) -> "list[np.ndarray | None]":
        """Decode a block's recordings, all asked for at once; those that give nothing have the reason in their fate."""
        waves: list[np.ndarray | None] = [None] * len(fates)
        asked: list[int] = []

        def wanted() -> Iterator[Excerpt]:
            for place, (fate, index) in enumerate(zip(fates, indexes, strict=True)):
                if fate.status == OK:
                    try:
                        excerpt = recordings.excerpt(index)
                    except AudioError as error:
                        fate.fail(error.error_type, str(error))
                        continue
                    asked.append(place)
                    yield excerpt

        found = self.decoder.decode_all(
            wanted(), sample_rate=self.sample_rate, channel=self.channel, max_seconds=self.max_seconds
        )
        for number, wave in enumerate(found):
            place = asked[number]
            if isinstance(wave, AudioError):
                fates[place].fail(wave.error_type, str(wave))
            elif isinstance(wave, TooLong):
                fates[place].skip("too_long", str(wave))
            else:
                waves[place] = wave
                fates[place].seconds = len(wave) / self.sample_rate
        return waves


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
