"""Commits of a training: when they are due, one at a time in a thread, and which of them stay."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from raysp.storage.store import Store
from raysp.training.loop import state
from raysp.training.sink import committed_steps
from raysp.training.sink.committed_steps import CommittedStep, Position
from raysp.training.sink.step_log import StepLog, StepRecord

LAST_COMMITS = 2
"""Commits that always stay: if the last commit cannot be read, a training continues from the previous one."""


@dataclass(frozen=True)
class RunOfSink:
    """Identity of a run in the files that it writes to the sink."""

    run_id: str
    epoch: int
    """Epoch of the lease that it holds."""


class Keeper:
    """Commits of a training.

    Args:
        store: the sink.
        fingerprint: of the recipe.
        every: steps between commits.
        seconds: longest time between commits; None: `every` alone counts.
        epoch: epoch of the lease that the run holds.
        log: receives the steps, and is written with each commit; None: they are not recorded.
    """

    def __init__(
        self,
        store: Store,
        fingerprint: str,
        every: int,
        seconds: float | None = None,
        *,
        epoch: int = 0,
        log: StepLog | None = None,
    ) -> None:
        self.store = store
        self.fingerprint = fingerprint
        self.every = every
        self.seconds = seconds
        self.epoch = epoch
        self.log = log
        self.last: int | None = None
        """Updates at the last commit of this run; None before the first."""
        self._begun_at = time.monotonic()
        self._best: int | None = None
        self._running: Future[CommittedStep] | None = None
        self._thread = ThreadPoolExecutor(1, "raysp-commits")

    def start(self) -> None:
        """Count the time to the first commit from now on."""
        self._begun_at = time.monotonic()

    def record(self, step: StepRecord) -> None:
        """Record a step, so that the next commit covers it."""
        if self.log is not None:
            self.log.add(step)

    def is_due(self, position: Position) -> bool:
        """Return whether it is time for a commit, by the steps, or by the clock if no commit is running."""
        is_late = self.seconds is not None and time.monotonic() - self._begun_at >= self.seconds
        is_idle = self._running is None or self._running.done()
        return (is_late and is_idle) or position.done % self.every == 0

    def begin(
        self,
        position: Position,
        files: Mapping[str, Mapping[str, Tensor]],
        *,
        index: str,
        num_workers: int,
        metrics: Mapping[str, float],
        best: int | None,
        measure: str = "",
    ) -> None:
        """Begin to commit a step in a thread; the commit before it is waited for.

        Args:
            position: of the training.
            files: tensors by the names of their files, which nobody changes any more.
            index: digest of the index of rows.
            num_workers: workers that took part in the step.
            metrics: last values by name.
            best: updates at the best evaluation, whose commit stays; None: there was none.
            measure: how its value was measured.
        """
        # One at a time: the marker of a step never appears before an earlier step's.
        self.end()
        self.start()
        self._best = best
        commit = partial(
            committed_steps.commit,
            self.store,
            position,
            {name: partial(state.write, tensors) for name, tensors in files.items()},
            fingerprint=self.fingerprint,
            index=index,
            num_workers=num_workers,
            metrics=metrics,
            epoch=self.epoch,
            measure=measure,
        )
        self._running = self._thread.submit(_recorded, self.log.take() if self.log else None, commit)

    def end(self) -> None:
        """Wait for the running commit, and remove the commits that are no longer needed.

        Raises:
            StoreError: a file of the commit cannot be written.
        """
        if self._running is None:
            return
        self.last = self._running.result().position.done
        self._running = None
        kept = {*committed_steps.newest(self.store, LAST_COMMITS, until=self.last)}
        if self._best is not None:
            kept.add(self._best)
        committed_steps.remove_others(self.store, kept, before=self.last)


def _recorded(write_log: Callable[[], None] | None, commit: Callable[[], CommittedStep]) -> CommittedStep:
    """Write the steps that a commit covers, then commit: so each committed step has its record."""
    if write_log:
        write_log()
    return commit()
