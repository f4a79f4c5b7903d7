"""Records of a training that no commit covers: error rows, calls of callbacks, a report."""

import contextlib
import logging
from dataclasses import asdict
from typing import Self

from raysp.errors import RayspError
from raysp.sink.layout import REPORT
from raysp.storage.store import Store
from raysp.training.callbacks import Callbacks
from raysp.training.data.row_windows import Failures
from raysp.training.loop.curve import recorded
from raysp.training.loop.evaluated import Evaluated
from raysp.training.reading.training_report import render
from raysp.training.sink.row_errors import ErrorRow, ErrorsLog
from raysp.training.sink.step_metrics import StepMetrics
from raysp.training.specs.recipe import Evaluation

logger = logging.getLogger(__name__)


class Recording:
    """Writer of the error rows and the report of one run, and its callbacks.

    Args:
        store: the sink.
        run_id: id of the run.
        evaluation: evaluation of the recipe; None without one.
        callbacks: receive every step.
        failures: the rows that could not be decoded; None: there are none.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        evaluation: Evaluation | None,
        callbacks: Callbacks,
        failures: Failures | None = None,
    ) -> None:
        self.store = store
        self.run_id = run_id
        self.evaluation = evaluation
        self.callbacks = callbacks
        self._done = 0
        self.failures = failures
        self.errors = ErrorsLog(store, run_id)
        self._written: int | None = None

    def add(
        self, step: StepMetrics, evaluated: Evaluated | None, committed: int | None, *, before: Evaluated | None = None
    ) -> None:
        """Report a step, with the evaluations after and before it, to the callbacks; write error rows after commits."""
        self._done = step.done
        evaluations = {"before": recorded(before, self.evaluation), "evaluation": recorded(evaluated, self.evaluation)}
        self.callbacks({**asdict(step), **{name: asdict(value) for name, value in evaluations.items() if value}})
        if committed != self._written:
            self._written = committed
            self.write()

    def write(self) -> None:
        """Write the error rows that are left."""
        if self.failures is not None:
            place_of = self.failures.corpus.place_of
            failed = self.failures.take()
            self.errors.add(ErrorRow(*place_of(row.row), row.error_type, row.message) for row in failed)
            self.errors.write()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Finish, with the status of the training for callbacks."""
        self.finish(has_failed=kind is not None)

    def finish(self, *, has_failed: bool = False) -> None:
        """Write remaining rows, call the callbacks, and write the report; a failing report ends no training.

        Args:
            has_failed: whether an error has ended the training.
        """
        self.write()
        self.callbacks({"done": self._done, "finished": True, "failed": has_failed})
        with contextlib.suppress(RayspError):
            self.store.replace(REPORT, render(self.store).encode())
