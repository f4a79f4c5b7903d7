"""Passes on CPUs: one after another with all threads, or several at once that share them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from raysp.crossing import Room


class Stages(Protocol):
    """One forward pass, in stages that different threads may run, one after another."""

    def fill(self, room: Room) -> None:
        """Pad the samples into memory of the host, and start their copy to the device."""
        ...

    def launch(self) -> None:
        """Start the pass on the device, and the copy of its results to the host."""
        ...

    def finish(self) -> None:
        """Wait for the results, and store the labels."""
        ...

    def run(self, error: BaseException | None = None) -> None:
        """Label the batch in the calling thread, in as many passes as it needs.

        Args:
            error: error of an earlier stage; None: no stage has begun.

        Raises:
            DeviceLostError: the device can no longer be used.
        """
        ...


class HostPasses:
    """Runs batches on the CPUs of an actor.

    Args:
        at_once: passes that run at once.
        in_threads: whether passes run in threads of their own even if there is one at a time.
        threads: torch threads of a pass that runs alone; None: as many as the calling thread has.
        threads_each: torch threads of each of the passes at once; None: as many as a new thread has.
    """

    blocks_in_flight = 1

    def __init__(self, at_once: int, *, in_threads: bool, threads: int | None, threads_each: int | None) -> None:
        self.threads, self.threads_each = threads, threads_each
        self.pool = ThreadPoolExecutor(at_once, "raysp-pass") if at_once > 1 or in_threads else None

    def __call__(self, batches: Sequence[Stages], *, one_by_one: bool = False) -> None:
        """Run batches to their ends; `one_by_one`: one after another with all threads."""
        if self.pool is None or one_by_one:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            for batch in batches:
                batch.run()
            return
        for done in [self.pool.submit(self._run, batch) for batch in batches]:
            done.result()

    def _run(self, batch: Stages) -> None:
        if self.threads_each is not None:
            torch.set_num_threads(self.threads_each)  # of this thread
        batch.run()
