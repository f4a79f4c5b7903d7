"""Decoded rows of windows, for the workers that train on them."""

import mmap
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from raysp.audio.waveforms import Samples
from raysp.errors import RunError
from raysp.labelling import assembly
from raysp.models.labelled_passes import CheckpointSummary
from raysp.ops.decoding import Decoder
from raysp.ops.rows import OK, RowStatus, row_statuses, waves_of
from raysp.text.targets import Targets
from raysp.training.data.indexing import TOO_SHORT, read_batches, values_of
from raysp.training.data.micro_batches import MicroBatch, TrainingRow
from raysp.training.planning.corpus_index import CorpusIndex
from raysp.training.planning.ordering import Window
from raysp.training.sink.step_log import ErrorRow
from raysp.training.specs.recipe import Finetune
from raysp.words import count

LEAST_FAILED = 20
"""Rows that must have failed before their share can end a training."""
MOST_LISTED = 100_000
"""Rows that are listed; more are counted only."""
BUFFER_BYTES = 32 * 1024 * 1024
"""Memory that is reserved at once; pages that nothing is written to take none."""
ALIGNMENT = 8
"""Bytes of which the place of a row's samples is a multiple."""


class PieceRows(NamedTuple):
    """Requested rows of a piece."""

    rows: dict[int, TrainingRow]
    """Rows by their numbers in the corpus."""
    failed: list[ErrorRow]
    num_read: int
    """Number of requested rows."""


class WaveBuffer:
    """Memory of the samples of many rows, which the system gets back when the last of them is no longer used.

    On the heap, rows that stay alternate with memory that decoding uses meanwhile, and freed windows leave holes.
    """

    _rest = memoryview(bytearray())

    def kept(self, wave: Samples) -> Samples:
        """Return a copy of samples in this memory."""
        num_bytes = -(-wave.nbytes // ALIGNMENT) * ALIGNMENT
        if len(self._rest) < num_bytes:
            self._rest = memoryview(mmap.mmap(-1, max(num_bytes, BUFFER_BYTES)))
        copied: Samples = np.frombuffer(self._rest[: wave.nbytes], wave.dtype)
        copied[:] = wave
        self._rest = self._rest[num_bytes:]
        return copied


@dataclass(frozen=True)
class PieceReader:
    """Reader of rows of pieces.

    Attributes:
        recipe: the recipe.
        checkpoint: description of the checkpoint to begin with.
        corpus: index of the rows.
        targets: targets of the rows.
        min_samples: samples of the shortest row.
        decoder: decoding functions; None: of this process.
    """

    recipe: Finetune
    checkpoint: CheckpointSummary
    corpus: CorpusIndex
    targets: Targets
    min_samples: int
    decoder: Decoder | None = None

    def __call__(self, number: int, rows: Sequence[int]) -> PieceRows:
        """Return rows of a piece.

        Args:
            number: number of the piece.
            rows: numbers of the rows in the corpus, ascending.

        Raises:
            ShardError: the shard cannot be read, or changed since it was planned.
            StoreError: its store fails.
        """
        read, buffer = PieceRows({}, [], len(rows)), WaveBuffer()
        for row, status, wave, value in self._decoded(number, rows):
            error: tuple[str, str] | None = None
            if status.status != OK or wave is None:
                error = status.error_type or "", status.error_message or ""
            elif len(wave) < self.min_samples:  # the header says more
                error = TOO_SHORT, f"{count(len(wave), 'sample')}; the model needs at least {self.min_samples}"
            else:
                target, num_frames = self.targets(value), self.checkpoint.num_frames(len(wave))
                if reason := self.targets.misfit(target, num_frames):
                    error = reason, f"{count(len(target.ids), 'label')} and {count(num_frames, 'frame')}"
                else:
                    read.rows[row] = TrainingRow(buffer.kept(wave), target.ids)
            if error is not None:
                read.failed.append(ErrorRow(*self.corpus.place_of(row), *error))
        return read

    def _decoded(self, number: int, rows: Sequence[int]) -> Iterator[tuple[int, RowStatus, Samples | None, object]]:
        """Yield rows of a piece, each with its outcome, its samples, and the value of its target."""
        shard, piece = self.corpus.piece(number)
        windowing = assembly.whole_rows(self.recipe, self.checkpoint)
        op = assembly.training_decoding(self.recipe, windowing, shard, decoder=self.decoder)
        first = int(self.corpus.durations.piece_rows[number])
        for table in read_batches(self.recipe, shard, piece):
            pa.default_memory_pool().release_unused()  # reading large rows temporarily takes three times their bytes
            end = first + table.num_rows
            here = rows[bisect_left(rows, first) : bisect_left(rows, end)]
            table = table.take(np.asarray(here, np.int64) - first) if len(here) < table.num_rows else table
            values = [*values_of(self.recipe, table)]
            for block in op(table, 0) if here else ():
                for status, wave in zip(row_statuses(block), waves_of(block), strict=True):
                    yield here[status.row], status, wave, values[status.row]
            first = end


@dataclass(eq=False, repr=False)
class Failures:
    """Rows that could not be decoded, counted by one worker."""

    max_error_rate: float
    """Largest share of rows that may fail."""
    by_type: Counter[str] = field(default_factory=Counter, init=False)
    examples: dict[str, str] = field(default_factory=dict, init=False)
    """A message of each type, with its row."""
    num_read: int = field(default=0, init=False)
    _listed: set[tuple[str, int]] = field(default_factory=set, init=False)
    _new: deque[ErrorRow] = field(default_factory=deque, init=False)  # which the thread that reads fills

    def add(self, num_read: int, failed: Iterable[ErrorRow]) -> None:
        """Count rows that were read.

        Raises:
            RunError: too many rows cannot be decoded.
        """
        self.num_read += num_read
        for row in failed:
            self.by_type[row.error_type] += 1
            self.examples.setdefault(row.error_type, f"{row.shard}:{row.row}: {row.error_message}")
            if (row.shard, row.row) not in self._listed and len(self._listed) < MOST_LISTED:
                self._listed.add((row.shard, row.row))
                self._new.append(row)
        total = self.by_type.total()
        if total >= LEAST_FAILED and total > self.max_error_rate * self.num_read:
            kind, number = self.by_type.most_common(1)[0]
            raise RunError(
                f"{total:,} of {count(self.num_read, 'row')} cannot be decoded, more than "
                f"max_error_rate={self.max_error_rate:g}; {number:,} of them are {kind}, such as {self.examples[kind]}"
            )

    def leave(self, rows: Iterable[ErrorRow]) -> None:
        """Add failed rows that no recorded step lists."""
        self._new.extend(rows)

    def take(self) -> tuple[ErrorRow, ...]:
        """Return the rows that failed since the last call, each once per run."""
        return tuple(self._new.popleft() for _ in range(len(self._new)))


def wanted_rows(window: Window, corpus: CorpusIndex, worker: int, num_workers: int) -> dict[int, list[int]]:
    """Return the rows that a worker needs of each piece of a window, by the numbers of the pieces, in row order."""
    needed = np.sort(window.rows_of(worker, num_workers))
    by_piece: dict[int, list[int]] = {}
    for number in window.pieces.tolist():
        first, end = corpus.durations.piece_rows[number : number + 2]
        rows = needed[np.searchsorted(needed, first) : np.searchsorted(needed, end)]
        if len(rows):
            by_piece[number] = rows.tolist()
    return by_piece


def read_rows(reader: PieceReader, failures: Failures, window: Window) -> dict[int, TrainingRow]:
    """Return the rows of a window as `rows_of`, for a worker that trains alone and reads them in its own process.

    Raises:
        RunError: too many rows cannot be decoded.
        ShardError, StoreError: as `PieceReader`.
    """
    wanted = wanted_rows(window, reader.corpus, 0, 1)
    return rows_of((reader(number, rows) for number, rows in wanted.items()), failures)


def rows_of(pieces: Iterable[PieceRows], failures: Failures) -> dict[int, TrainingRow]:
    """Return the rows of pieces by their numbers, and count those that cannot be decoded, which are left out.

    Raises:
        RunError: too many rows cannot be decoded.
    """
    decoded: dict[int, TrainingRow] = {}
    for piece in pieces:
        failures.add(piece.num_read, piece.failed)
        decoded |= piece.rows
    return decoded


def micro_batch(window: Window, step: int, number: int, rows: Mapping[int, TrainingRow]) -> MicroBatch:
    """Return a micro-batch without the rows that could not be decoded."""
    decoded = [row for row in window.micro_batch(step, number).tolist() if row in rows]
    return MicroBatch(number, decoded, [rows[row].wave for row in decoded], [rows[row].target for row in decoded])
