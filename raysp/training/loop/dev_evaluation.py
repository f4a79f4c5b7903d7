"""Evaluation during a training: the workers predict the rows of a corpus, which are compared with their references."""

import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from raysp.corpus.shards import Piece
from raysp.corpus.tables import bytes_of
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import SECONDS, Columns, Key
from raysp.labelling import assembly
from raysp.labelling.planning.run_plan import Corpus
from raysp.ops.rows import OK, row_statuses, waves_of
from raysp.storage.opened import digest_of
from raysp.text.targets import Target
from raysp.training.data.indexing import read_batches, values_of
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.loop.evaluated import Evaluated, comparable, measure_of, rule_of
from raysp.training.loop.training_steps import Workers
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.recipe import Evaluation
from raysp.training.tasks.task import PredictedRows, Prediction, Task

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder


MEETING_SECONDS = 20.0
"""Time after which workers meet: well below that after which one that waits takes another for lost."""
MANY_PIECES = 4
"""Pieces for each worker from which on every piece is read by one worker only."""
SLICE_ROWS = 64
"""Rows that are decoded and sorted by duration together, and of which one worker makes forward passes."""


class Predicted(NamedTuple):
    """A row with its prediction."""

    place: tuple[int, int]
    """Number of the shard, and of the row in it."""
    reference: str
    prediction: Prediction
    seconds: float
    groups: tuple[Key, ...]
    digest: bytes
    """Digest of the recording and the reference."""


class _Row(NamedTuple):
    place: tuple[int, int]
    reference: str
    target: Target
    groups: tuple[Key, ...]
    wave: np.ndarray
    digest: bytes


class _Read(NamedTuple):
    """A piece as it was read."""

    shard: int
    piece: Piece
    table: pa.Table
    values: Sequence[object]
    """References of the rows."""
    columns: Sequence[Sequence[Key]]
    """Columns of groups."""


class Evaluator:
    """Evaluation of the weights of an objective, by all workers together: each predicts some of the pieces.

    Args:
        plan: the plan, with an evaluation.
        evaluation: the evaluation of its recipe.
        objective: the objective.
        task: the task.
        workers: the workers that train together.
        decoder: decoding functions; None: of this process.
        corpus: the rows; None: the plan's rows by which weights are compared.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        evaluation: Evaluation,
        objective: Objective,
        task: Task,
        workers: Workers,
        decoder: "Decoder | None" = None,
        corpus: Corpus | None = None,
    ) -> None:
        corpus = corpus or plan.evaluated
        assert corpus is not None
        self.plan = plan
        self.evaluation = evaluation
        self.objective = objective
        self.task = task
        self.targets = task.targets()
        self.min_samples = task.min_samples(plan)
        self.workers = workers
        self.decoder = decoder
        self.shards = corpus.shards
        self.failed = 0

    def __call__(self) -> Evaluated:
        """Predict all rows, and return their metrics, which are the same on all workers."""
        self.failed = 0
        gathered = self.workers.gather((self._own(), self.failed))
        # In the order of the corpus, so that sums and the digest do not depend on the number of workers.
        rows = sorted((row for rows, _ in gathered for row in rows), key=lambda row: row.place)
        return self._compared(rows, sum(failed for _, failed in gathered))

    def _compared(self, rows: Sequence[Predicted], failed: int) -> Evaluated:
        names = [name for name in self.evaluation.by if name != SECONDS]
        by = {name: [row.groups[place] for row in rows] for place, name in enumerate(names)}
        seconds = [row.seconds for row in rows] if SECONDS in self.evaluation.by else None
        is_first = self.workers.number == 0
        comparison = self.task.compare(
            PredictedRows(
                [row.reference for row in rows],
                [row.prediction for row in rows],
                Columns(seconds, by),
                self.evaluation,
                None if is_first else Bootstrap(draws=0),
            )
        )
        losses = [row.prediction.loss for row in rows if row.prediction.loss is not None]
        loss = float(np.mean(losses)) if losses else None
        best = self.evaluation.best
        value = loss if best == "loss" else comparison.scores.metrics[best].value
        places = [rows[mismatch.index].place for mismatch in comparison.worst]
        worst = tuple(f"{self.shards[shard].name}:{row}" for shard, row in places)
        measure = measure_of(rule_of(best, self.evaluation.normalise), (row.digest for row in rows))
        value = comparable(best, value)
        if not is_first:
            return Evaluated(value, loss, None, failed, len(rows), measure)
        return Evaluated(value, loss, comparison, failed, len(rows), measure, worst)

    def _own(self) -> list[Predicted]:
        """Predict this worker's rows. All meet every few seconds, since none waits for another without end."""
        own: list[Predicted] = []
        batches = self._batches()
        while True:
            is_done = _extend(own, batches, seconds=MEETING_SECONDS)
            # All call `gather` until all are done: a worker that left earlier would leave the others waiting.
            if all(self.workers.gather(is_done)):
                return own

    def _batches(self) -> Iterator[list[Predicted]]:
        """Yield this worker's rows, a forward pass at a time; passes do not depend on the number of workers."""
        number, count = self.workers.number, self.workers.count
        pieces = [(number, piece) for number, shard in enumerate(self.shards) for piece in shard.pieces]
        is_shared = len(pieces) < MANY_PIECES * count
        for place, (shard, piece) in enumerate(pieces):
            if is_shared or place % count == number:
                for slice_number, rows in enumerate(self._slices(shard, piece)):
                    if not is_shared or (place + slice_number) % count == number:
                        yield from self._passes(rows)

    def _passes(self, rows: Iterator[_Row]) -> Iterator[list[Predicted]]:
        """Yield rows with their predictions, a forward pass over rows of like duration at a time."""
        budget = self.plan.sizes.micro_seconds * self.plan.checkpoint.sample_rate
        left = sorted(rows, key=lambda row: -len(row.wave))
        while left:
            size = max(1, int(budget / max(1, len(left[0].wave))))
            batch, left = left[:size], left[size:]
            yield [*self._predicted(batch)]

    def _predicted(self, rows: Sequence[_Row]) -> Iterator[Predicted]:
        waves = [row.wave for row in rows]
        batch = MicroBatch(0, range(len(rows)), waves, [row.target.ids for row in rows])
        for row, predicted in zip(rows, self.task.predict(self.objective, batch), strict=True):
            seconds = len(row.wave) / self.plan.checkpoint.sample_rate
            prediction = predicted._replace(loss=None) if row.target.reason else predicted
            yield Predicted(row.place, row.reference, prediction, seconds, row.groups, row.digest)

    def _slices(self, number: int, piece: Piece) -> Iterator[Iterator[_Row]]:
        """Yield slices of a piece; each yields its rows with a reference, as far as they can be predicted."""
        shard = self.shards[number]
        table = pa.concat_tables(read_batches(self.evaluation, shard, piece))
        values = [*values_of(self.evaluation, table)]
        columns = [table.column(name).to_pylist() for name in self.evaluation.by if name != SECONDS]
        kept = [index for index, value in enumerate(values) if self.task.reference(value) is not None]
        for first in range(0, len(kept), SLICE_ROWS):
            yield self._decoded(_Read(number, piece, table, values, columns), kept[first : first + SLICE_ROWS])

    def _decoded(self, read: _Read, kept: Sequence[int]) -> Iterator[_Row]:
        checkpoint, shard = self.plan.checkpoint, self.shards[read.shard]
        op = assembly.training_decoding(self.evaluation, checkpoint, shard, decoder=self.decoder)
        table = read.table.take(kept)
        recordings = table.column(self.evaluation.source.audio)
        for block in op(table, 0):
            for row_status, wave in zip(row_statuses(block), waves_of(block), strict=True):
                if row_status.status != OK or wave is None or len(wave) < self.min_samples:
                    self.failed += 1
                    continue
                index = kept[row_status.row]
                target = self.targets(read.values[index])
                reference = self.task.reference(read.values[index])
                assert reference is not None
                groups = tuple(column[index] for column in read.columns)
                embedded = bytes_of(recordings[row_status.row]) or (row_status.version or "").encode()
                digest = digest_of(embedded) + sha256(reference.encode(errors="surrogatepass")).digest()
                yield _Row((read.shard, read.piece.first + index), reference, target, groups, wave, digest)


def _extend(rows: list[Predicted], batches: Iterator[list[Predicted]], *, seconds: float) -> bool:
    """Add batches for some time, at least one, and return whether none is left."""
    began = time.monotonic()
    for batch in batches:
        rows += batch
        if time.monotonic() - began >= seconds:
            return False
    return True
