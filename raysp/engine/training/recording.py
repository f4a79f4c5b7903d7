"""Records of steps and evaluations: metrics, error rows, event files of TensorBoard, trackers, a report."""

import contextlib
import logging
from collections.abc import Sequence
from typing import Self

from raysp.engine.training.trackers import Tracker
from raysp.errors import RayspError
from raysp.evaluation.scores import WorstRow
from raysp.reading.reporting import report
from raysp.sink.training import evaluations
from raysp.sink.training.errors import ErrorRow, ErrorsLog
from raysp.sink.training.evaluations import StepEvaluation
from raysp.sink.training.metrics import MetricsLog, StepMetrics
from raysp.sink.training.tensorboard import TensorBoardLog
from raysp.specs.recipe import Evaluation
from raysp.storage.store import Store
from raysp.training.evaluated import Evaluated
from raysp.training.reading import FailedRow, Failures

logger = logging.getLogger(__name__)


class Recording:
    """Writer of the steps and evaluations of one run.

    Args:
        store: the sink.
        run_id: id of the run.
        evaluation: that of the recipe; None: there is none.
        trackers: trackers, which are told of every step.
        failures: the rows that could not be decoded; None: there are none.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        evaluation: Evaluation | None,
        trackers: Sequence[Tracker] = (),
        failures: Failures | None = None,
    ) -> None:
        self.store = store
        self.run_id = run_id
        self.evaluation = evaluation
        self.trackers = trackers
        self.metrics = MetricsLog(store, run_id)
        self.events = TensorBoardLog(store, run_id)
        self.failures = failures
        self.errors = ErrorsLog(store, run_id)
        self._written: int | None = None

    def add(self, step: StepMetrics, evaluated: Evaluated | None, committed: int | None) -> None:
        """Record a step; files are written after each commit.

        Raises:
            StoreError: an evaluation cannot be written.
        """
        values = step.tracked
        self.metrics.add(step)
        if evaluated and self.evaluation and (found := _recorded(evaluated, self.evaluation)):
            evaluations.save(self.store, step.done, found, run_id=self.run_id)
            values = {**values, **found.tracked}
        self.events.log(step.done, values)
        for tracker in self.trackers:
            tracker.log(step.done, values)
        if committed != self._written:
            self._written = committed
            self.write()

    def write(self) -> None:
        """Write what is left to files."""
        self.metrics.write()
        self.events.write()
        if self.failures is not None:
            self.errors.add(self._error_row(one) for one in self.failures.take())
            self.errors.write()

    def _error_row(self, failed: FailedRow) -> ErrorRow:
        assert self.failures is not None
        return ErrorRow(*self.failures.corpus.place_of(failed.row), failed.error_type, failed.message)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Finish, with the status of the training for trackers."""
        self.finish(has_failed=kind is not None)

    def finish(self, *, has_failed: bool = False) -> None:
        """Write what is left, end the trackers, and write the report; a report that fails ends no training.

        Args:
            has_failed: whether an error has ended the training.
        """
        self.write()
        for tracker in self.trackers:
            tracker.finish(has_failed=has_failed)
        with contextlib.suppress(RayspError):
            report(self.store)


def _recorded(evaluated: Evaluated, evaluation: Evaluation) -> StepEvaluation | None:
    """Return an evaluation of the first worker as it is stored; None for other workers."""
    comparison = evaluated.comparison
    if comparison is None:
        return None
    worst = []
    for one, name in zip(comparison.worst, evaluated.rows, strict=True):
        shard, _, row = name.rpartition(":")
        worst.append(
            WorstRow(
                id=name,
                shard=shard,
                row=int(row),
                seconds=None,
                reference=one.reference,
                hypothesis=one.hypothesis,
                errors=one.errors,
                score=one.score,
                edits=one.edits,
            )
        )
    return StepEvaluation(
        metric=evaluation.best,
        scores=comparison.scores,
        by=comparison.by,
        worst=tuple(worst),
        classes=comparison.classes,
        loss=evaluated.loss,
        normalisation=evaluation.normalise if "wer" in comparison.scores.metrics else None,
    )
