"""The lease: who works on a sink. It saves work that two drivers would do twice; correctness never rests on it.

Each holder makes the next `.raysp/lease/<epoch>`, and the highest epoch holds. What is in it is told from nobody's wall
clock: a holder is dead when its process is known to be, or when its beat did not change for `STALE_BEATS` beats of the
watcher's own monotonic clock. An epoch that was given back stays as it is, so that epochs only ever grow and a holder
that was away finds that it is no longer the highest.
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
"""For tests, in which nobody wants to wait a minute."""

_ended: set[str] = set()
"""Owners of this process that have ended, whether or not they could still write that down."""


@dataclass(frozen=True)
class Holder:
    """What an epoch of the lease holds."""

    owner: str
    """Unique; begins with the user's name."""
    process: Process
    since: str
    """By the holder's wall clock; for people, never compared."""
    beat: int = 0
    released: bool = False

    @classmethod
    def now(cls) -> "Holder":
        """Describe this process as a new holder."""
        return cls(f"{_user()}-{uuid.uuid4().hex[:8]}", Process.here(), datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def is_over(self) -> bool:
        """Whether it is known to have ended: it said so, its process is gone, or it was of this very process."""
        return self.released or self.owner in _ended or self.process.is_known_dead()

    @property
    def words(self) -> str:
        """Name the holder."""
        return f"{self.owner} on host {self.process.host!r} (pid {self.process.pid}, since {self.since})"


class Lease:
    """A lease that this process holds; made by `acquire`.

    Args:
        store: the sink.
        epoch: the own one.
        holder: as written there.
        beat_seconds: between two beats.
        clock: monotonic.
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
        """Name the holder, as nobody else is named."""
        return self._holder.owner

    def beat(self) -> None:
        """Say that the holder lives, unless a higher epoch says that another one took over; as often as due."""
        self._look()
        if not self._lost:
            self._holder = replace(self._holder, beat=self._holder.beat + 1)
            self._store.replace(layout.lease_path(self.epoch), _encode(self._holder))

    def check(self) -> None:
        """Go on only while no other run has taken over; looks at the store only when the last look is long ago.

        Raises:
            RunError: one has; its work and this one's fit together, but only one should go on.
        """
        if not self._lost and self._clock() - self._looked > STALE_BEATS * self._beat_seconds / 2:
            with contextlib.suppress(StoreError):
                self._look()
        if self._lost:
            raise RunError(self._lost)

    def release(self) -> None:
        """Give it back; the epoch stays, so that the next one is higher."""
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
                f"{epochs[-1]}, this run holds {self.epoch}), because this run's beat had stopped; this run ends. What "
                "was committed or staged stays, and the other one goes on from there"
            )


@contextlib.contextmanager
def held(store: Store) -> Iterator[Lease]:
    """Hold a sink's lease, with a thread that keeps its beat, and give it back at the end.

    Raises:
        PlanError: a living run holds it.
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
    """Take the lease, over from a dead holder if need be; waits until that is known.

    Raises:
        PlanError: a living run holds it.
    """
    holder = holder or Holder.now()
    while True:
        top = _wait_until_free(store, beat_seconds, clock, sleep)
        if store.create(layout.lease_path(top + 1), _encode(holder)):
            _forget(store, top)
            return Lease(store, top + 1, holder, beat_seconds, clock)


def highest_epoch(store: Store) -> int:
    """Give the highest epoch that was ever held, 0 before there is one."""
    return (_epochs(store) or [0])[-1]


def last_holder(store: Store) -> Holder | None:
    """Return who held the lease last, or holds it; None where nobody did, or it cannot be read."""
    top = highest_epoch(store)
    return _read(store, top) if top else None


def refuse_if_held(store: Store, *, beat_seconds: float | None = None) -> None:
    """Raise if a living run holds the lease; takes nothing and writes nothing.

    Raises:
        PlanError: naming it.
    """
    _wait_until_free(store, seconds_between_beats() if beat_seconds is None else beat_seconds)


def seconds_between_beats() -> float:
    """Give the seconds between two beats."""
    return float(os.environ.get(BEAT_VARIABLE) or BEAT_SECONDS)


def old_epochs(store: Store) -> list[str]:
    """Name the files of epochs that nobody looks at any more: all but the highest and the one that it followed."""
    return [layout.lease_path(epoch) for epoch in _epochs(store)[:-2]]


def _wait_until_free(
    store: Store,
    beat_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Give the highest epoch, 0 before there is one, once nobody alive holds it."""
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
                    "%s: %s holds the lease; watching for up to %g s whether it lives",
                    store.url, found.words, STALE_BEATS * beat_seconds,
                )  # fmt: skip
            watched, since = (top, found), clock()
        elif found != watched[1] and found is not None:
            raise PlanError(
                f"{store.url}: {found.words} is at work on this sink (its beat came {clock() - since:.1f} s after this "
                "run began to watch it); wait until it is done or stop it, and run again"
            )
        elif clock() - since >= STALE_BEATS * beat_seconds:
            return top
        sleep(beat_seconds / POLLS_A_BEAT)


def _keep_beating(lease: Lease, done: threading.Event, beat_seconds: float) -> None:
    while not done.wait(beat_seconds):
        try:
            lease.beat()
        except StoreError as error:  # without a beat another run may take over: work done twice, nothing worse
            log.warning("the beat of the lease could not be written: %s", error)


def _epochs(store: Store) -> list[int]:
    found = (layout.parse_lease_path(entry.path) for entry in store.list(layout.LEASE))
    return sorted(epoch for epoch in found if epoch is not None)


def _read(store: Store, epoch: int) -> Holder | None:
    """Read an epoch; None when it is gone or cannot be understood, which no living holder leaves so."""
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
    """Remove the epochs below the one that was just left: one is kept, for whoever looks at it now."""
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
