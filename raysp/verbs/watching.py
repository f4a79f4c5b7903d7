"""Repeated status of a sink, until its runs have ended. Only the sink is read."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

from raysp.sink import lease
from raysp.sink.lease import STALE_BEATS, Running, seconds_between_beats
from raysp.storage.store import Store
from raysp.verbs.status import status
from raysp.work import Progress, SinkRequest, kind_of_sink

SECONDS = 5.0
"""Seconds between two states."""


@dataclass
class Watch:
    """An iterator over states of a sink; the last state is after its runs have ended, or were lost.

    A run on another machine is lost if its heartbeat does not change for a minute of this machine's clock.

    Attributes:
        store: the sink.
        clock: monotonic clock.
        sleep: waits some seconds.
        is_lost: whether a run was lost.
    """

    store: Store
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    is_lost: bool = field(default=False, init=False)

    @classmethod
    def open(cls, request: SinkRequest) -> Self:
        """Open a sink, of label shards or of a training; the errors are the same as for `status`."""
        return cls(kind_of_sink(request).opened(request))

    def __iter__(self) -> Iterator[Progress]:
        """Yield a state, and further states as long as a run is active."""
        beats, since = self._beats(), self.clock()
        while True:
            state = status(self.store)
            yield state
            if state.running in (Running.NO, Running.KILLED):
                return
            if state.running is Running.ELSEWHERE and self.clock() - since >= STALE_BEATS * seconds_between_beats():
                self.is_lost = True
                return
            self.sleep(SECONDS)
            if (now := self._beats()) != beats:
                beats, since = now, self.clock()

    def _beats(self) -> tuple[str, int] | None:
        """Return the owner and the heartbeat of the active run; None without one."""
        holder = lease.holder(self.store)
        return None if holder is None or holder.is_over else (holder.owner, holder.beat)
