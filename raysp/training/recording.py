"""Side effects of a run besides its commits: calls of callbacks, failed rows since the last commit, and a report."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict

from raysp import tracebacks
from raysp.errors import RayspError
from raysp.sink.layout import LOG, REPORT
from raysp.storage.store import Store
from raysp.training.data.row_windows import Failures
from raysp.training.reading.training_report import render
from raysp.training.sink import committed_steps
from raysp.training.sink.step_log import ErrorRow, StepRecord
from raysp.training.sink.training_record import TrainingRecord

logger = logging.getLogger(__name__)

Callbacks = Mapping[str, Callable[..., object]]
"""Functions of the user by their names, "module:function", that are called with every step of a training."""


class Recording:
    """The steps of one run as they are done, and its end.

    The first error of each callback is logged, and none ends the training.

    Args:
        store: the sink.
        record: record of the training, whose last run this is.
        callbacks: receive every step, with the sink and the id of the training, which stays until a restart.
        failures: the rows that could not be decoded.
    """

    def __init__(self, store: Store, record: TrainingRecord, callbacks: Callbacks, failures: Failures) -> None:
        self.store = store
        self.run_id = record.runs[-1].run_id
        self.callbacks = callbacks
        self.failures = failures
        identity = hashlib.sha256(f"{store.url} {record.created}".encode()).hexdigest()[:16]
        self._training = {"sink": store.url, "training": identity}
        self._broken: set[str] = set()
        """Callbacks that have failed."""
        self._done = 0
        self._failed: dict[ErrorRow, int] = {}
        """Failed rows with their steps."""

    def add(self, step: StepRecord) -> None:
        """Pass a step on to the callbacks."""
        self._done = step.done
        self._failed |= dict.fromkeys(step.errors, step.done)
        self._call(step.json)

    def _call(self, record: Mapping[str, object]) -> None:
        for name, function in self.callbacks.items():
            try:
                function({**record, **self._training})
            except (Exception, SystemExit) as error:
                tracebacks.raise_if_stopped(error)
                tracebacks.note(error)
                if name not in self._broken:
                    where = tracebacks.described(error, name.partition(":")[0])
                    logger.warning("callback %r failed, and the training goes on: %s", name, where)
                self._broken.add(name)

    def end(self, kind: object, error: object, trace: object) -> None:
        """Call the callbacks, and write the rows that are left and the report; a failing report ends no training."""
        errors = [asdict(row) for row in (*self._uncommitted(), *self.failures.take())]
        facts = {"done": self._done, "failed": kind is not None, **({"errors": errors} if errors else {})}
        end: dict[str, object] = {**facts, "finished": True}
        if errors:
            try:
                self.store.create(f"{LOG}{self.run_id}-end.jsonl", f"{json.dumps(end)}\n".encode())
            except RayspError as failure:
                logger.warning("%s: %d error rows were not written: %s", self.store.url, len(errors), failure)
        self._call(end)
        with contextlib.suppress(RayspError):
            self.store.replace(REPORT, render(self.store).encode())

    def _uncommitted(self) -> list[ErrorRow]:
        """Return the failed rows whose steps were not committed."""
        if not self._failed:
            return []
        with contextlib.suppress(RayspError):
            step = committed_steps.latest(self.store)
            return [row for row, done in self._failed.items() if step is None or done > step.position.done]
        return [*self._failed]
