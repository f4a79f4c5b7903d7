"""Decoding of a piece of a shard to blocks of windows of similar length."""

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
import pyarrow as pa

import raysp.audio as in_process
from raysp.audio import AudioHeader, DecodeOptions, Excerpt, Recording, Samples, SupportsRead, TooLong
from raysp.audio.waveforms import Windowing, cut_windows
from raysp.columns import DIGEST
from raysp.errors import AudioError
from raysp.ops.blocks import BLOCK_BYTES, cut_blocks
from raysp.ops.channels import explode, status_of_channel
from raysp.ops.late_steps import NOTHING, Carrying
from raysp.ops.pasts import PAST, PAST_TYPE, Pasts
from raysp.ops.recordings import WHOLE_BYTES, Recordings, read_claims
from raysp.ops.rows import (
    ERROR,
    NO_SPEECH,
    OK,
    PLACE,
    PLACE_TYPE,
    CutWave,
    Place,
    RowStatus,
    Window,
    row_statuses,
    seconds_of_row,
    statuses_table,
    with_values,
    with_waves,
)
from raysp.ops.step_ops import RowOp, apply, by_seconds, fail_unreadable, judge, reasons
from raysp.storage.audio_root import AudioRoot

SAMPLE_BYTES = 4  # as float32: one such window makes the whole block float32
SECONDS_LEFT = b"raysp.seconds_left"
"""Metadata key of a block: seconds of audio of its piece after this block, according to the headers."""
STREAM_BLOCK_BYTES = BLOCK_BYTES // 2
"""Largest number of bytes of samples in a block of a long row, which is in memory itself."""

DIGEST_BYTES = 16
"""Bytes of the digest of a recording (BLAKE2b)."""
DAMAGE = frozenset({"corrupt_audio", "invalid_audio"})
"""Errors before which each decoding yields the same samples, unlike a crash or timeout."""


class Decoder(Protocol):
    """Decoding functions: `raysp.audio` itself, or `raysp.audio.isolation.Decoder` in a separate process."""

    def read_headers(
        self, recordings: Iterable[Recording | None], *, counted: bool = False
    ) -> Iterator[AudioHeader | AudioError]:
        """Yield the headers of recordings, in order; if `counted`, `num_frames` is None unless it counts the whole."""
        ...

    def decode_all(
        self, excerpts: Iterable[Excerpt], options: DecodeOptions, /
    ) -> Iterator[Samples | AudioError | TooLong]:
        """Yield decoded recordings, in order."""
        ...

    def decode_chunks(self, excerpt: Excerpt, options: DecodeOptions, /) -> Iterator[Samples]:
        """Yield one decoded recording in chunks."""
        ...


CutAtPauses = Callable[[Iterator[Samples]], Iterator[CutWave]]
"""Function that cuts a recording at pauses while it is decoded; it yields nothing without speech."""


@dataclass(eq=False, kw_only=True)
class Decoding:
    """Op that decodes the recordings of a piece, block by block.

    Attributes:
        audio: column of the recordings.
        windowing: division into windows; its sample rate is the model's.
        channel: "mean", an index, or "each": blocks have a row for each channel (`raysp.ops.channels`).
        max_seconds: longer recordings are skipped.
        keep_prefix: whether error rows with a recording damaged part-way keep the samples before the damage.
        block_seconds: seconds of audio per block.
        before: ops on rows by their source columns, before decoding.
        after: ops on decoded rows.
        carrying: columns that blocks carry for steps on decoded rows that pass all of `before` and `after`.
        late: op of such steps, called with each block; None without such steps.
        decoder: decoding functions.
        root: root folder of paths of recordings; None: paths are not allowed.
        excerpt_columns: columns of offset and duration, which select a part of each recording; empty: whole recordings.
        texts: columns of texts, also if they hold bytes; a row whose text cannot be read fails.
        cut_at_pauses: function that cuts all rows into windows; None: long rows are cut by `windowing`.
        together: source column; a block has rows with one value of it. None: blocks may have any rows.
        past_samples: samples before the end of the previous window that each window of a longer row comes with.
    """

    audio: str
    windowing: Windowing
    channel: Literal["mean", "each"] | int = "mean"
    max_seconds: float = 43200
    keep_prefix: bool = False
    block_seconds: float
    before: Sequence[RowOp] = ()
    after: Sequence[RowOp] = ()
    carrying: Carrying = NOTHING
    late: Callable[[pa.Table], pa.Table] | None = None
    decoder: Decoder = in_process
    root: AudioRoot | None = None
    excerpt_columns: Sequence[str] = ()
    texts: Sequence[str] = ()
    cut_at_pauses: CutAtPauses | None = None
    together: str | None = None
    past_samples: int = 0

    def __post_init__(self) -> None:
        self.sample_rate = self.windowing.sample_rate
        by_default = 0 if self.channel == "each" else self.channel  # all channels of a recording have one duration
        self.options = DecodeOptions(self.sample_rate, by_default, self.max_seconds, self.keep_prefix)

    def __call__(self, rows: pa.Table, first: int) -> Iterator[pa.Table]:
        """Decode a piece: first rows of several windows, as a stream, then short rows in the order of `cut_blocks`.

        A row that is longer than its header claims fills additional blocks. The boundaries of windows and blocks depend
        only on the rows and on `block_seconds`.

        Args:
            rows: source columns of the piece in row order; the audio column is a struct with `bytes`, or bytes.
            first: number of its first row in the shard.

        Yields:
            Blocks, at least one, with columns `ROW_SCHEMA`, `wave` and the added columns. Every row of the piece has
            one or more consecutive windows in them. If a row fails after some of its windows were yielded, its last
            window has the error.
        """
        piece = _Piece.of(self, rows, first)
        yield from self._blocks(piece.exploded() if self.channel == "each" else piece)

    def measure(self, rows: pa.Table, first: int) -> list[RowStatus]:
        """Return the outcome and duration of each row, as far as headers tell; a row may fail when decoded.

        Rows are decoded only if their headers lack the duration, or for steps on decoded rows. Arguments are those of
        `__call__`.
        """
        if self.late is not None:
            last_of_row: dict[int, RowStatus] = {}
            for block in self(rows, first):
                for row_status in row_statuses(block):
                    before = last_of_row.get(row_status.row)
                    if before is not None and before.seconds is not None:
                        row_status.seconds = (row_status.seconds or 0.0) + before.seconds
                    last_of_row[row_status.row] = row_status
            return [last_of_row[row] for row in sorted(last_of_row)]
        return [row_status for row_status, _ in self.measure_channels(rows, first)]

    def measure_channels(self, rows: pa.Table, first: int) -> list[tuple[RowStatus, int]]:
        """Return outcomes as `measure` without steps on decoded rows, each with the number of labelled channels."""
        piece = _Piece.of(self, rows, first, are_counted=True)
        for index, row_status in enumerate(piece.statuses):
            if row_status.status != OK:
                continue
            claimed = piece.claimed[index]
            if not claimed:
                deque(self._chunks(piece, index, row_status), maxlen=0)
            elif claimed > self.max_seconds:
                row_status.skip("too_long", str(TooLong(claimed, self.max_seconds)))
            else:
                row_status.seconds = claimed
            self._judge(piece, index, row_status)
        return list(zip(piece.statuses, piece.channels, strict=True))

    def judge(self, rows: pa.Table, first: int, seconds: Sequence[float | None]) -> list[RowStatus]:
        """Return the outcome of each row of known duration; no recording is read.

        Args:
            rows: as in `__call__`, without the audio.
            first: number of its first row in the shard.
            seconds: durations; None only for rows that an op on their columns skips.
        """
        statuses = [RowStatus(first + index) for index in range(rows.num_rows)]
        rows = fail_unreadable(rows, statuses, self.texts)
        for op in self.before:
            apply(op, statuses, rows)
        after = [reasons(op, rows) for op in self.after]
        for index, row_status in enumerate(statuses):
            if row_status.status != OK:
                continue
            row_status.seconds = seconds[index] or 0.0
            if row_status.seconds > self.max_seconds:
                row_status.skip("too_long", str(TooLong(row_status.seconds, self.max_seconds)))
            for op, op_reasons in zip(self.after, after, strict=True):
                judge(op, row_status, op_reasons[index])
        return statuses

    def _blocks(self, piece: "_Piece") -> Iterator[pa.Table]:
        left = [
            0.0 if channel else min(seconds, self.max_seconds)
            for seconds, (_, channel) in zip(piece.claimed, piece.sources, strict=True)
        ]
        index_of = {row_status.row: index for index, row_status in enumerate(piece.statuses)}
        of_stream = min(STREAM_BLOCK_BYTES // SAMPLE_BYTES, round(self.block_seconds * self.sample_rate))
        for windows in _fill(self._windows(piece), (of_stream, BLOCK_BYTES // SAMPLE_BYTES)):
            statuses, chunks = [window.row_status for window in windows], [window.chunks for window in windows]
            places, indexes = [window.place for window in windows], [index_of[status.row] for status in statuses]
            pasts = [window.past for window in windows]
            for status, index in zip(statuses, indexes, strict=True):
                status.recording, status.version = piece.recordings.identity(piece.sources[index][0])
                left[index] = 0.0 if status.windows else max(0.0, left[index] - (status.seconds or 0.0))
            block = with_waves(statuses_table(statuses), [window.wave for window in windows])
            windows.clear()  # waves
            block = with_values(block, PLACE, places, PLACE_TYPE) if self.cut_at_pauses else block
            block = with_values(block, PAST, pasts, PAST_TYPE) if self.past_samples else block
            block = self.carrying(block, statuses, piece.columns, indexes, chunks)
            del chunks
            yield (self.late(block) if self.late else block).replace_schema_metadata({SECONDS_LEFT: repr(sum(left))})

    def _windows(self, piece: "_Piece") -> Iterator[tuple[int, Window]]:
        """Yield windows with the numbers of their blocks; long rows have number 0, and may fill several blocks."""
        kinds = None if self.together is None else piece.columns.column(self.together).to_pylist()
        short = list[int]()
        for index, seconds in enumerate(piece.claimed):
            if seconds > self.windowing.window_seconds:
                yield from ((0, window) for window in self._row(piece, index))
            else:
                short.append(index)
        blocks = cut_blocks(
            [min(piece.claimed[index], self.max_seconds) for index in short],
            block_seconds=self.block_seconds,
            bytes_per_second=SAMPLE_BYTES * self.sample_rate,
            kinds=[str(kinds[index]) for index in short] if kinds else None,
            in_order=piece.recordings.are_sequential,
        )
        for number, block in enumerate(blocks, 1):
            yield from ((number, window) for window in self._rows(piece, [short[place] for place in block]))

    def _rows(self, piece: "_Piece", indexes: Sequence[int]) -> Iterator[Window]:
        """Decode rows with short claimed lengths in one request, then stream longer and damaged rows."""
        pending = [index for index in indexes if piece.statuses[index].status == OK]
        yield from (Window(piece.statuses[i], None) for i in indexes if piece.statuses[i].status != OK)
        requested: list[int] = []
        longer: list[int] = []
        results = self.decoder.decode_all(
            piece.excerpts(pending, requested),
            replace(self.options, max_seconds=min(self.max_seconds, self.windowing.window_seconds)),
        )
        for number, decoded in enumerate(results):
            index = requested[number]
            row_status = piece.statuses[index]
            if isinstance(decoded, AudioError) and self.options.keep_prefix and decoded.error_type in DAMAGE:
                longer.append(index)  # decoded again up to its damage
            elif isinstance(decoded, AudioError):
                row_status.fail(decoded.error_type, str(decoded))
                yield Window(row_status, None)
            elif isinstance(decoded, TooLong) or len(decoded) > self.windowing.window_samples:
                longer.append(index)
            else:
                yield from self._short(piece, index, decoded)
        yield from (Window(piece.statuses[index], None) for index in pending if index not in requested)
        for index in longer:
            yield from self._row(piece, index)

    def _short(self, piece: "_Piece", index: int, samples: Samples) -> Iterator[Window]:
        """Yield the windows of a decoded row."""
        row_status = piece.statuses[index]
        row_status.seconds = seconds_of_row(len(samples), self.sample_rate, piece.claimed[index])
        if DIGEST in self.carrying.outputs:
            row_status.digest = hashlib.blake2b(_hashed(samples), digest_size=DIGEST_BYTES).hexdigest()
        self._judge(piece, index, row_status)
        if self.cut_at_pauses and row_status.status == OK:
            yield from self._cut(piece, index, iter([samples]))
        else:
            yield Window(row_status, samples if row_status.status == OK else None)

    def _row(self, piece: "_Piece", index: int) -> Iterator[Window]:
        """Decode one row as a stream of windows; the last one has the outcome of the row."""
        row_status = piece.statuses[index]
        if row_status.status == OK and self._may_be_left_out(piece, index):
            deque(self._chunks(piece, index, row_status), maxlen=0)  # so that no window of a skipped row is labelled
            self._judge(piece, index, row_status)
        if not _has_samples(row_status):
            yield Window(row_status, None)
            return
        yield from self._cut(piece, index, self._chunks(piece, index, row_status))

    def _cut(self, piece: "_Piece", index: int, chunks: Iterator[Samples]) -> Iterator[Window]:
        """Cut one row into windows, the last with its outcome; a row cut at pauses is skipped without speech.

        A damaged row whose prefix is kept is an error row with windows.
        """
        row_status, kept = piece.statuses[index], list[Samples]()
        pasts = Pasts(self.past_samples) if self.past_samples else None
        wave: Samples = np.empty(0, np.float32)
        place: Place | None = None
        number = num_added = 0
        for wave, num_samples, is_last, place in self._waves(_kept(chunks, kept) if self.carrying.samples else chunks):
            if not is_last:
                part = RowStatus(row_status.row, number, None, num_samples / self.sample_rate)
                yield Window(part, wave, place=place, past=pasts.before(is_last=False) if pasts else None)
                if pasts:
                    pasts.add(wave, num_samples)
                number, num_added = number + 1, num_added + num_samples
        self._judge(piece, index, row_status)
        if self.cut_at_pauses and place is None and row_status.status == OK:
            row_status.skip(NO_SPEECH, "no speech was found in the recording")
        row_status.window, row_status.windows = number, number + 1
        if row_status.seconds is not None:
            row_status.seconds -= num_added / self.sample_rate
        if not _has_samples(row_status):
            yield Window(row_status, None)
            return
        past = pasts.before(is_last=True) if pasts and number else None
        yield Window(row_status, wave, kept if number or self.cut_at_pauses else (), place, past)

    def _waves(self, chunks: Iterator[Samples]) -> Iterator[CutWave]:
        """Yield the windows of a recording while it is decoded; none without samples."""
        if self.cut_at_pauses:
            yield from self.cut_at_pauses(chunks)
        elif (first := next(chunks, None)) is not None:
            for wave, is_last in cut_windows(itertools.chain([first], chunks), self.windowing):
                yield CutWave(wave, self.windowing.added_samples(len(wave)), is_last)

    def _may_be_left_out(self, piece: "_Piece", index: int) -> bool:
        """Return whether a row should first be decoded only for its length, since a filter may skip it."""
        claimed = piece.claimed[index]
        if claimed <= self.windowing.window_seconds:
            return False
        by_columns = any(op_reasons[index] is not None for op_reasons in piece.reasons)
        return by_columns or claimed > self.max_seconds or any(by_seconds(op, claimed) is not None for op in self.after)

    def _chunks(self, piece: "_Piece", index: int, row_status: RowStatus) -> Iterator[Samples]:
        """Yield the decoded samples of a row, and record its outcome in `row_status`.

        An error row has `seconds` if the samples before its damage are kept.
        """
        num_samples = 0
        row_status.seconds = None
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES) if DIGEST in self.carrying.outputs else None
        try:
            for chunk in self.decoder.decode_chunks(piece.excerpt(index), self.options):
                num_samples += len(chunk)
                if digest is not None:
                    digest.update(_hashed(chunk))
                yield chunk
        except AudioError as error:
            row_status.fail(error.error_type, str(error))
            if not (self.options.keep_prefix and num_samples and error.error_type in DAMAGE):
                return
        except TooLong as error:
            row_status.skip("too_long", str(error))
            return
        row_status.digest = None if digest is None else digest.hexdigest()
        row_status.seconds = seconds_of_row(num_samples, self.sample_rate, piece.claimed[index])

    def _judge(self, piece: "_Piece", index: int, row_status: RowStatus) -> None:
        for op, op_reasons in zip(self.after, piece.reasons, strict=True):
            judge(op, row_status, op_reasons[index])


@dataclass(frozen=True)
class _Piece:
    """The rows of a piece: their outcomes, recordings, and claimed lengths."""

    statuses: Sequence[RowStatus]
    recordings: Recordings
    reasons: Sequence[Sequence[str | None]]
    """For each op after decoding, reasons to skip rows by their source columns."""
    claimed: Sequence[float]
    channels: Sequence[int]
    """Number of channels that are labelled."""
    columns: pa.Table
    """Source columns for ops on decoded rows, without the audio."""
    sources: Sequence[tuple[int, int | None]]
    """Index of the recording of each row, and its channel; None: the channel of the options of decoding."""

    @classmethod
    def of(cls, op: Decoding, rows: pa.Table, first: int, *, are_counted: bool = False) -> Self:
        """Return the rows of a piece, filtered by their source columns, with their headers read; see `read_claims`."""
        statuses = [RowStatus(first + i) for i in range(rows.num_rows)]
        recordings = Recordings(rows, op.audio, op.root, op.excerpt_columns)
        columns = fail_unreadable(rows.drop_columns([op.audio]), statuses, op.texts)
        for row_op in op.before:
            apply(row_op, statuses, columns)
        after = [reasons(row_op, columns) for row_op in op.after]
        read = op.decoder.read_headers
        claimed, channels = read_claims(recordings, statuses, read, op.channel == "each", are_counted=are_counted)
        sources = [(index, None) for index in range(rows.num_rows)]
        return cls(statuses, recordings, after, claimed, channels, columns, sources)

    def exploded(self) -> Self:
        """Return the piece with a row for each channel of its rows."""
        sources = explode(self.channels)
        rows = [row for row, _ in sources]
        return replace(
            self,
            statuses=[status_of_channel(self.statuses[row], channel) for row, channel in sources],
            reasons=[[op_reasons[row] for row in rows] for op_reasons in self.reasons],
            claimed=[self.claimed[row] for row in rows],
            columns=self.columns.take(pa.array(rows, pa.int64())),
            sources=sources,
        )

    def excerpt(self, index: int, audio: memoryview | SupportsRead | None = None) -> Excerpt:
        """Return the part of a recording to decode, of `audio` if it is open; raises the errors of `Recordings.get`."""
        source, channel = self.sources[index]
        return self.recordings.excerpt(source, audio, channel=channel)

    def excerpts(self, indexes: Sequence[int], requested: list[int]) -> Iterator[Excerpt]:
        """Yield the parts of recordings to decode, and append the indexes of their rows to `requested`.

        Neighbouring rows of one recording share it. A missing recording fails its rows.
        """
        recordings = self.recordings
        neighbours = itertools.groupby(indexes, key=lambda index: recordings.file_of(self.sources[index][0]))
        shared = [[*rows] for _, rows in neighbours]
        opened = recordings.ahead((self.sources[rows[0]][0] for rows in shared), WHOLE_BYTES)
        for rows, (first, audio) in zip(shared, opened, strict=True):
            for index in rows:
                if isinstance(audio, AudioError):
                    self.statuses[index].fail(audio.error_type, str(audio))
                    continue
                recordings.share(first, self.sources[index][0])
                requested.append(index)
                yield self.excerpt(index, audio)


def _has_samples(row_status: RowStatus) -> bool:
    """Return whether a row is labelled: it is ok, or an error row that keeps the samples before its damage."""
    return row_status.status == OK or (row_status.status == ERROR and row_status.seconds is not None)


def _fill(windows: Iterator[tuple[int, Window]], most_samples: tuple[int, int]) -> Iterator[list[Window]]:
    """Yield blocks of windows; at least one, which may be empty."""
    block: list[Window] = []
    number = num_samples = 0
    for meant_for, window in windows:
        more = 0 if window.wave is None else len(window.wave)
        if block and (meant_for != number or num_samples + more > most_samples[min(number, 1)]):
            yield block
            block, num_samples = [], 0
        block.append(window)
        number, num_samples = meant_for, num_samples + more
    yield block


def seconds_left(block: pa.Table) -> float:
    """Return the seconds of audio of a piece after this block according to headers; 0 if unknown."""
    return float((block.schema.metadata or {}).get(SECONDS_LEFT, 0))


def _hashed(samples: Samples) -> memoryview:
    """Return the bytes of samples of which the digest is: float32, little-endian."""
    scale = 1 / 32768 if samples.dtype == np.int16 else 1  # a power of two: exact
    return np.ascontiguousarray(samples * np.float32(scale), "<f4").data


def _kept(chunks: Iterator[Samples], kept: list[Samples]) -> Iterator[Samples]:
    """Yield chunks and append them to a list."""
    for chunk in chunks:
        kept.append(chunk)
        yield chunk
