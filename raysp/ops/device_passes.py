"""Passes on an accelerator: one thread pads and copies, one launches, and others compute columns from results.

Each thread processes batches in the order of submission, and so does each stream. Batches of the next block follow
without a gap. Threads wait for each other only for a room in the ring, a place on the device, or a batch.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from queue import LifoQueue, SimpleQueue
from threading import Lock, Semaphore
from typing import TypeAlias

import torch

from raysp.crossing import Room, for_copies, for_passes
from raysp.devices import synchronize
from raysp.ops.host_passes import Stages

Done: TypeAlias = "SimpleQueue[BaseException | None]"

LAUNCHED = 2
"""Batches between launch and labels: while one is on the device, columns of another are computed."""
IN_FLIGHT = 2
"""Blocks in flight at once: the first batches of the next block follow the last batches of a block."""
BATCHES_A_BLOCK = 4
"""Least number of batches of a block (`raysp.ops.blocks.block_seconds`)."""
AHEAD = 1
"""Batches that are padded and copied before a place on the device is free."""


class _Item:
    """A batch in flight."""

    def __init__(self, batch: Stages, done: Done) -> None:
        self.batch, self.done = batch, done
        self.room: Room
        self.error: BaseException | None = None

    def stage(self, work: Callable[[], object], stream: AbstractContextManager[object]) -> None:
        """Run a stage within a stream, unless an earlier stage failed."""
        if self.error is None:
            try:
                with stream:
                    work()
            except BaseException as error:  # a model, an output or a user's output may raise any error
                self.error = error


class DevicePasses:
    """Runs batches on an accelerator.

    A batch with a failed stage runs again when no other batch is on the device, which then has all its memory.

    Args:
        device: the device, with the model.
        launched: batches between launch and labels.
        ending: threads that compute columns, more than one if they wait for other processes.
        blocks_in_flight: number of blocks in flight at once.
    """

    def __init__(
        self, device: torch.device, *, launched: int = LAUNCHED, ending: int = 1, blocks_in_flight: int = IN_FLIGHT
    ) -> None:
        self.device = device
        self.blocks_in_flight = blocks_in_flight
        self.launched = launched
        self._rooms: LifoQueue[Room] = LifoQueue()
        """A stack, so that a room allocates memory only when it is needed."""
        self._places = Semaphore(launched)
        self._filled: SimpleQueue[_Item] = SimpleQueue()
        self._on_device: SimpleQueue[_Item] = SimpleQueue()
        for _ in range(launched + AHEAD):
            self._rooms.put(Room(device))
        self._failed: list[_Item] = []
        self._kept = 0
        """Places of batches that ended, kept until the failed ones have run."""
        self._giving, self._counting = Lock(), Lock()
        self._copying, self._passing = (ThreadPoolExecutor(1, f"raysp-{name}") for name in ("copy", "pass"))
        self._ending = ThreadPoolExecutor(ending, "raysp-label")
        synchronize(device)  # weights were copied on another stream

    def __call__(self, batches: Sequence[Stages], *, one_by_one: bool = False) -> None:
        """Run batches to their ends."""
        done: Done = SimpleQueue()
        # The batches of a block follow each other in all three threads.
        with self._giving:
            for batch in batches:
                self._copying.submit(self._fill, _Item(batch, done))
                self._passing.submit(self._launch)
                self._ending.submit(self._end)
        errors = [error for error in [done.get() for _ in batches] if error is not None]
        if errors:
            raise errors[0]

    def _fill(self, item: _Item) -> None:
        item.room = self._rooms.get()
        item.stage(lambda: item.batch.fill(item.room), for_copies(self.device))
        self._filled.put(item)

    def _launch(self) -> None:
        item = self._filled.get()
        self._places.acquire()
        item.stage(item.batch.launch, for_passes(self.device))
        self._on_device.put(item)

    def _end(self) -> None:
        item = self._on_device.get()
        item.stage(item.batch.finish, for_passes(self.device))
        with self._counting:
            self._kept += 1
            if item.error is None:
                self._leave(item)
            else:
                self._failed.append(item)
            if not self._failed or self._is_alone():
                self._run_failed()
                self._places.release(self._kept)
                self._kept = 0

    def _is_alone(self) -> bool:
        """Take all free places; return whether no batch is on the device."""
        while self._kept < self.launched:
            if not self._places.acquire(blocking=False):  # the batch in that place ends later
                return False
            self._kept += 1
        return True

    def _run_failed(self) -> None:
        for item in self._failed:
            failed, item.error = item.error, None
            item.stage(partial(item.batch.run, failed), for_passes(self.device))
            self._leave(item)
        self._failed.clear()

    def _leave(self, item: _Item) -> None:
        self._rooms.put(item.room)
        item.done.put(item.error)
