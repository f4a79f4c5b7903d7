"""Evaluation during a training: the workers predict the rows of a corpus, which are compared with their references."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from raysp import assembly
from raysp.corpus.shards import Piece, Shard
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import SECONDS, Columns, Key
from raysp.ops.rows import OK, row_statuses, waves_of
from raysp.planning.training.plans import TrainingPlan
from raysp.specs.recipe import Evaluation
from raysp.text.targets import Target
from raysp.training.batches import MicroBatch, Objective
from raysp.training.evaluated import Evaluated, comparable
from raysp.training.indexing import read_batches, values_of
from raysp.training.loop import Workers
from raysp.training.tasks.class_targets import OTHER_FRAMES
from raysp.training.tasks.task import Prediction, Task

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder


class Predicted(NamedTuple):
    """A row with its prediction."""

    place: tuple[int, int]
    """Number of the shard, and of the row in it."""
    reference: str
    prediction: Prediction
    seconds: float
    groups: tuple[Key, ...]


class _Row(NamedTuple):
    place: tuple[int, int]
    reference: str
    target: Target
    groups: tuple[Key, ...]
    wave: np.ndarray


class Evaluator:
    """Evaluation of the weights of an objective, by all workers together: each predicts some of the pieces.

    Args:
        plan: the plan, with an evaluation.
        evaluation: the evaluation of its recipe.
        objective: the objective.
        task: the task.
        workers: the workers that train together.
        decoder: decoding functions; None: those of this process.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        evaluation: Evaluation,
        objective: Objective,
        task: Task,
        workers: Workers,
        decoder: "Decoder | None" = None,
    ) -> None:
        assert plan.evaluated is not None
        self.plan = plan
        self.evaluation = evaluation
        self.objective = objective
        self.task = task
        self.targets = task.targets()
        self.min_samples = task.min_samples(plan)
        self.workers = workers
        self.decoder = decoder
        self.shards = plan.evaluated.shards
        self.failed = 0

    def __call__(self) -> Evaluated:
        """Predict all rows, and return their metrics, which are the same on all workers."""
        self.failed = 0
        pieces = [
            (number, piece) for number, shard in enumerate(self.shards) for piece in shard.pieces if piece.num_rows
        ]
        mine = pieces[self.workers.number :: self.workers.count]
        own = [row for number, piece in mine for row in self._piece(number, piece)]
        gathered = self.workers.gather((own, self.failed))
        rows = sorted((row for rows, _ in gathered for row in rows), key=lambda row: row.place)
        return self._compared(rows, sum(failed for _, failed in gathered))

    def _compared(self, rows: Sequence[Predicted], failed: int) -> Evaluated:
        names = [name for name in self.evaluation.by if name != SECONDS]
        by = {name: [row.groups[place] for row in rows] for place, name in enumerate(names)}
        seconds = [row.seconds for row in rows] if SECONDS in self.evaluation.by else None
        is_first = self.workers.number == 0
        comparison = self.task.compare(
            [row.reference for row in rows],
            [row.prediction for row in rows],
            Columns(seconds, by),
            self.evaluation,
            None if is_first else Bootstrap(draws=0),
        )
        losses = [row.prediction.loss for row in rows if row.prediction.loss is not None]
        loss = float(np.mean(losses)) if losses else None
        best = self.evaluation.best
        value = loss if best == "loss" else comparison.scores.metrics[best].value
        places = [rows[one.index].place for one in comparison.worst]
        worst = tuple(f"{self.shards[shard].name}:{row}" for shard, row in places)
        return Evaluated(
            comparable(best, value), loss, comparison if is_first else None, failed, worst if is_first else ()
        )

    def _piece(self, number: int, piece: Piece) -> Iterator[Predicted]:
        rows = sorted(self._decoded(number, self.shards[number], piece), key=lambda row: -len(row.wave))
        budget = self.plan.sizes.micro_seconds * self.plan.checkpoint.sample_rate
        while rows:
            size = max(1, int(budget / max(1, len(rows[0].wave))))
            batch, rows = rows[:size], rows[size:]
            yield from self._predicted(batch)

    def _predicted(self, rows: Sequence[_Row]) -> Iterator[Predicted]:
        waves = [row.wave for row in rows]
        batch = MicroBatch(0, range(len(rows)), waves, [row.target.ids for row in rows])
        for row, found in zip(rows, self.task.predict(self.objective, batch), strict=True):
            seconds = len(row.wave) / self.plan.checkpoint.sample_rate
            prediction = found._replace(loss=None) if row.target.reason else found
            yield Predicted(row.place, row.reference, prediction, seconds, row.groups)

    def _decoded(self, number: int, shard: Shard, piece: Piece) -> Iterator[_Row]:
        """Yield the rows of a piece that have a reference and can be predicted."""
        checkpoint = self.plan.checkpoint
        table = pa.concat_tables(read_batches(self.evaluation, shard, piece))
        values = [*values_of(self.evaluation, table)]
        references = {
            index: reference
            for index, value in enumerate(values)
            if (reference := self.task.reference(value)) is not None
        }
        columns = [table.column(name).to_pylist() for name in self.evaluation.by if name != SECONDS]
        op = assembly.training_decoding(self.evaluation, checkpoint, shard, decoder=self.decoder)
        kept = [*references]
        for block, _ in op(table.take(kept), 0):
            for row_status, wave in zip(row_statuses(block), waves_of(block), strict=True):
                if row_status.status != OK or wave is None or len(wave) < self.min_samples:
                    self.failed += 1
                    continue
                index = kept[row_status.row]
                target = self.targets(values[index])
                if self.targets.misfit(target, checkpoint.num_frames(len(wave))) == OTHER_FRAMES:
                    self.failed += 1
                    continue
                groups = tuple(column[index] for column in columns)
                yield _Row((number, piece.first + index), references[index], target, groups, wave)
