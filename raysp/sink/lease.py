"""Lease: the run that works on a sink. It avoids duplicate work of two drivers; correctness never depends on it.

Each holder creates the next `.raysp/lease/<epoch>`, and the highest epoch holds the lease. Wall clocks are never
compared: a holder is dead if its process is known to have ended, or if its beat did not change for `STALE_BEATS` beats
of the watcher's own monotonic clock. The file of a released epoch is kept, so that epochs only grow and a holder that
was suspended finds that its epoch is no longer the highest.
"""

import contextlib
import getpass
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from raysp.errors import PlanError, RunError, StoreError
from raysp.sink import layout
from raysp.sink.processes import Process
from raysp.storage.store import Store

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
STALE_BEATS = 6
POLLS_A_BEAT = 10
BEAT_VARIABLE = "RAYSP_BEAT_SECONDS"
"""Environment variable that replaces BEAT_SECONDS in tests, which would otherwise wait a minute."""

_ended: set[str] = set()
"""Owners of this process that have ended, even if they could not write their release."""


@dataclass(frozen=True)
class Holder:
    """Content of an epoch of the lease."""

    owner: str
    """Unique name; starts with the user's name."""
    process: Process
    since: str
    """Start by the holder's wall clock; shown to users, never compared."""
    beat: int = 0
    released: bool = False

    @classmethod
    def now(cls) -> "Holder":
        """Return this process as a new holder."""
        return cls(f"{_user()}-{uuid.uuid4().hex[:8]}", Process.here(), datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def is_over(self) -> bool:
        """Whether it is known to have ended: it was released, its process ended, or it ended in this process."""
        return self.released or self.owner in _ended or self.process.is_known_dead()

    @property
    def words(self) -> str:
        """Description of the holder for messages."""
        return f"{self.owner} on host {self.process.host!r} (pid {self.process.pid}, since {self.since})"


class Lease:
    """A lease held by this process; created by `acquire`.

    Args:
        store: the sink.
        epoch: the epoch held.
        holder: content of the epoch.
        beat_seconds: seconds between two beats.
        clock: monotonic clock.
    """

    def __init__(
        self, store: Store, epoch: int, holder: Holder, beat_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.epoch = epoch
        self._store = store
        self._holder = holder
        self._beat_seconds = beat_seconds
        self._clock = clock
        self._looked = clock()
        self._lost = ""

    @property
    def owner(self) -> str:
        """Unique name of the holder."""
        return self._holder.owner

    def beat(self) -> None:
        """Write the next beat, unless a higher epoch shows that another holder took over."""
        self._look()
        if not self._lost:
            self._holder = replace(self._holder, beat=self._holder.beat + 1)
            self._store.replace(layout.lease_path(self.epoch), _encode(self._holder))

    def check(self) -> None:
        """Raise if another run has taken over. The store is read only if the last read is half a stale period ago.

        Raises:
            RunError: another run has taken over. The work of both is compatible, but only one should continue.
        """
        if not self._lost and self._clock() - self._looked > STALE_BEATS * self._beat_seconds / 2:
            with contextlib.suppress(StoreError):
                self._look()
        if self._lost:
            raise RunError(self._lost)

    def release(self) -> None:
        """Release the lease. The epoch is kept, so that the next one is higher."""
        self._look()
        if not self._lost and not self._holder.released:
            self._holder = replace(self._holder, released=True)
            self._store.replace(layout.lease_path(self.epoch), _encode(self._holder))

    def _look(self) -> None:
        epochs = _epochs(self._store)
        self._looked = self._clock()
        if epochs and epochs[-1] > self.epoch:
            other = _read(self._store, epochs[-1])
            self._lost = (
                f"{self._store.url}: {other.words if other else 'another run'} took over the lease (epoch "
                f"{epochs[-1]}, this run holds {self.epoch}), because this run's heartbeat had stopped; this run ends. "
                "Committed and staged labels are kept, and the other run continues from them"
            )


@contextlib.contextmanager
def held(store: Store) -> Iterator[Lease]:
    """Hold a sink's lease, with a thread that writes its beats, and release it at the end.

    Raises:
        PlanError: an active run holds it.
    """
    beat_seconds = seconds_between_beats()
    lease = acquire(store, beat_seconds=beat_seconds)
    done = threading.Event()
    thread = threading.Thread(target=_keep_beating, args=(lease, done, beat_seconds), name="raysp-lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        _ended.add(lease.owner)
        done.set()
        thread.join(beat_seconds)
        with contextlib.suppress(StoreError):
            lease.release()


def acquire(
    store: Store,
    *,
    beat_seconds: float = BEAT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    holder: Holder | None = None,
) -> Lease:
    """Acquire the lease, from a dead holder if necessary; wait until the holder is known to be dead.

    Raises:
        PlanError: an active run holds it.
    """
    holder = holder or Holder.now()
    while True:
        top = _wait_until_free(store, beat_seconds, clock, sleep)
        if store.create(layout.lease_path(top + 1), _encode(holder)):
            _forget(store, top)
            return Lease(store, top + 1, holder, beat_seconds, clock)


def highest_epoch(store: Store) -> int:
    """Return the highest epoch that was ever held; 0 if there was no epoch."""
    return (_epochs(store) or [0])[-1]


def last_holder(store: Store) -> Holder | None:
    """Return the current or last holder of the lease; None if there was no holder, or it cannot be read."""
    top = highest_epoch(store)
    return _read(store, top) if top else None


def refuse_if_held(store: Store, *, beat_seconds: float | None = None) -> None:
    """Raise if an active run holds the lease. Nothing is acquired or written.

    Raises:
        PlanError: with the holder.
    """
    _wait_until_free(store, seconds_between_beats() if beat_seconds is None else beat_seconds)


def seconds_between_beats() -> float:
    """Return the seconds between two beats."""
    return float(os.environ.get(BEAT_VARIABLE) or BEAT_SECONDS)


def old_epochs(store: Store) -> list[str]:
    """Return the files of epochs that are no longer read: all but the highest and the one before it."""
    return [layout.lease_path(epoch) for epoch in _epochs(store)[:-2]]


def _wait_until_free(
    store: Store,
    beat_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Return the highest epoch, or 0 without an epoch, once it is known that no active run holds it."""
    watched: tuple[int, Holder | None] | None = None
    since = clock()
    while True:
        top = highest_epoch(store)
        found = _read(store, top) if top else None
        if top == 0 or (found and found.is_over):
            return top
        if watched is None or watched[0] != top:
            if watched is None and found:
                log.warning(
                    "%s: %s holds the lease; checking for up to %g s whether it is alive",
                    store.url, found.words, STALE_BEATS * beat_seconds,
                )  # fmt: skip
            watched, since = (top, found), clock()
        elif found != watched[1] and found is not None:
            raise PlanError(
                f"{store.url}: {found.words} is running on this sink (its heartbeat was seen {clock() - since:.1f} s "
                "after this run began to check); wait until it has finished or stop it, and run again"
            )
        elif clock() - since >= STALE_BEATS * beat_seconds:
            return top
        sleep(beat_seconds / POLLS_A_BEAT)


def _keep_beating(lease: Lease, done: threading.Event, beat_seconds: float) -> None:
    while not done.wait(beat_seconds):
        try:
            lease.beat()
        except StoreError as error:  # without a beat another run may take over: only work is duplicated
            log.warning("the heartbeat of the lease could not be written: %s", error)


def _epochs(store: Store) -> list[int]:
    found = (layout.parse_lease_path(entry.path) for entry in store.list(layout.LEASE))
    return sorted(epoch for epoch in found if epoch is not None)


def _read(store: Store, epoch: int) -> Holder | None:
    """Return the holder of an epoch; None if the file is missing or malformed, which an active holder never leaves."""
    path = layout.lease_path(epoch)
    try:
        if store.stat(path) is None:
            return None
        fields = json.loads(store.read(path))
        return Holder(**{**fields, "process": Process(**fields["process"])})
    except (ValueError, TypeError, KeyError) as error:
        log.warning("%s/%s: this epoch of the lease cannot be read (%s)", store.url, path, error)
        return None


def _forget(store: Store, top: int) -> None:
    """Remove the epochs below `top`, the previous one, which is kept for processes that are reading it."""
    with contextlib.suppress(StoreError):
        for epoch in _epochs(store):
            if epoch < top:
                store.delete(layout.lease_path(epoch))


def _encode(holder: Holder) -> bytes:
    return json.dumps({**vars(holder), "process": vars(holder.process)}).encode()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
