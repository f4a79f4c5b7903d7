"""Commits of a training: when they are due, one at a time in a thread, and which of them stay."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from raysp.models.base.weights import write_safetensors
from raysp.sink.fencing import FencedStore
from raysp.training.sink import committed_steps
from raysp.training.sink.committed_steps import CommittedStep, Position
from raysp.training.sink.step_log import StepLog
from raysp.training.specs.recipe import Checkpoint


@dataclass(eq=False, repr=False)
class Keeper:
    """Commits of a training."""

    store: FencedStore
    """The sink."""
    fingerprint: str
    """Fingerprint of the recipe."""
    due: Checkpoint
    """The sink of the recipe, which sets the steps and the longest time between commits."""
    log: StepLog
    """Receives the steps, and is written with each commit."""
    last: int | None = field(default=None, init=False)
    """Updates at the last commit; None before the first."""
    _begun_at: float = field(default_factory=time.monotonic, init=False)
    _best: int | None = field(default=None, init=False)
    _running: Future[CommittedStep] | None = field(default=None, init=False)
    _thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "raysp-commits"), init=False)

    def is_due(self, position: Position) -> bool:
        """Return whether it is time for a commit, by the steps, or by the clock if no commit is running."""
        is_late = time.monotonic() - self._begun_at >= 60 * (self.due.minutes or math.inf)
        is_idle = self._running is None or self._running.done()
        return (is_late and is_idle) or position.done % self.due.every == 0

    def begin(self, step: CommittedStep, files: Mapping[str, Mapping[str, Tensor]], best: int | None) -> None:
        """Begin to commit a step in a thread; the commit before it is waited for.

        Args:
            step: the step, without its files.
            files: tensors by the names of their files, which nobody changes any more.
            best: updates at the best evaluation, whose commit stays; None: there was none.
        """
        # One at a time: the marker of a step never appears before an earlier step's.
        self.end()
        self._begun_at, self._best = time.monotonic(), best
        self._running = self._thread.submit(self._commit, step, files, self.log.take())

    def _commit(
        self, step: CommittedStep, files: Mapping[str, Mapping[str, Tensor]], write_log: Callable[[], None]
    ) -> CommittedStep:
        write_log()  # first, so that each committed step has its record
        writers = {name: partial(write_safetensors, tensors=tensors) for name, tensors in files.items()}
        return committed_steps.commit(self.store, step, writers)

    def end(self) -> None:
        """Wait for the running commit, and remove the commits that are no longer needed.

        Raises:
            StoreError: a file of the commit cannot be written.
        """
        if self._running is None:
            return
        self.last = self._running.result().position.done
        self._running = None
        best = () if self._best is None else (self._best,)
        committed_steps.remove_earlier(self.store, self.last, best)
