"""Actors of a simulated world: each lives in a thread of its own."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from raysp import RayspError
from raysp.sink.receipts import ShardReceipt

_IDLE: list["Thread"] = []
"""Threads are kept from one history to the next."""


class Thread:
    """Lives one actor after the other."""

    def __init__(self) -> None:
        self.given: tuple[Callable[..., None], tuple[object, ...]] | None = None
        self.wake = threading.Lock()
        self.wake.acquire()
        threading.Thread(target=self._go, name="actor", daemon=True).start()

    @staticmethod
    def do(work: Callable[..., None], *arguments: object) -> None:
        thread = _IDLE.pop() if _IDLE else Thread()
        thread.given = (work, arguments)
        thread.wake.release()

    def _go(self) -> None:
        while True:
            self.wake.acquire()
            work, arguments = self.given
            work(*arguments)
            self.given = work = arguments = None
            _IDLE.append(self)


class SimulatedCrash(BaseException):
    """Kill of an actor: nothing may catch it."""


class StoppedError(RayspError):
    """End of a run of which too many rows failed."""


class RefusedError(RayspError):
    """Refusal of a plan whose shards changed."""


class ViolationError(AssertionError):
    """Something happened that must never happen."""


@dataclass(eq=False)
class Actor:
    """A driver, or a task of one."""

    name: str
    kind: str
    """"plain", "again" (shards, whole) or "retry" (rows), which says what its label shards may replace; or "gc"."""
    turn: threading.Lock = field(default_factory=threading.Lock)
    wakes: float = 0.0
    waits_for: Callable[[], bool] | None = None
    doomed: bool = False
    ended: bool = False
    outcome: object = None
    """None: it succeeded."""
    receipt: ShardReceipt | None = None
    """What its commit returned."""
    planned: int = 0
    """Number of changes of the world when its driver had made its plan."""
    began: int = 0
    """Number of changes of the world when its driver began to make it."""
    errors: int | None = None
    """Of a task that labels: error rows that it makes. Of a commit: error rows of the shard that its driver counted."""
    listed: frozenset[str] = frozenset()
    """Paths that its last listing of staged results had."""
    epoch: int = 0
    """Epoch of a driver's lease; 0: it holds none."""
    is_stopping: bool = False
    """Whether it is a driver that removes staged results with error rows."""
