"""Lease: the run that works on a sink. It avoids duplicate work of two drivers; correctness never depends on it.

Each holder creates the next `.raysp/lease/<epoch>`, and holds the lease until there is a higher epoch. Wall clocks are
never compared: a holder is dead if its process is known to have ended, or if its beat did not change for `STALE_BEATS`
beats of the watcher's own monotonic clock. The file of a released epoch is kept until there is a later one, so that
epochs only grow and a holder that was suspended finds the epoch that replaced its own.
"""

import contextlib
import getpass
import json
import logging
import os
import socket
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path

from raysp import bounds
from raysp.errors import PlanError, RunError, StoreError
from raysp.sink import layout, records
from raysp.sink.records import Natural
from raysp.storage.store import Store


@dataclass(frozen=True)
class Process:
    """A process, identified by its machine, its pid and its start time."""

    host: str
    boot: str
    """Boot id of the machine's kernel, and namespace of `pid`; empty if the system does not provide them."""
    pid: Natural
    start: str
    """Start time in the kernel's ticks; empty if the system does not provide it."""

    @classmethod
    def here(cls) -> "Process":
        """Return the identity of this process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), _start(os.getpid()))

    def is_alive(self) -> bool | None:
        """Return whether the process runs; None if that cannot be determined here, as for other machines."""
        if not (self.boot and self.start) or (self.host, self.boot) != (socket.gethostname(), _boot()):
            return None
        return _start(self.pid) == self.start  # the kernel reuses pids


def _boot() -> str:
    # A container has the boot id of its machine, but pids of its own.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start(pid: int) -> str:
    """Return the start time of a process; empty if it does not exist or is a zombie."""
    try:
        # The name in parentheses may hold any character. The state is the first field after it, the start the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


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
    beat: Natural = 0
    released: bool = False

    @classmethod
    def now(cls) -> "Holder":
        """Return this process as a new holder."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = "somebody"
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(f"{user}-{uuid.uuid4().hex[:8]}", Process.here(), since)

    @property
    def is_over(self) -> bool:
        """Whether it is known to have ended: it was released, its process ended, or it ended in this process."""
        return self.running in (Running.NO, Running.KILLED)

    @property
    def running(self) -> "Running":
        """Whether its run is active, as far as this machine can determine."""
        is_alive = self.process.is_alive()  # asked once: it may end between two looks
        if self.released or (self.owner in _ended and is_alive is not False):
            return Running.NO
        return {True: Running.YES, False: Running.KILLED, None: Running.ELSEWHERE}[is_alive]

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

    def beat(self) -> None:
        """Write the next beat, unless a higher epoch shows that another holder took over."""
        self._write(replace(self._holder, beat=self._holder.beat + 1))

    def _write(self, holder: Holder) -> None:
        self._look()
        if not self._lost:
            self._holder = holder
            self._store.replace(layout.lease_path(self.epoch), _encode(holder))

    def check(self) -> None:
        """Raise if another run has taken over. The store is read only if the last read is half a stale period ago.

        Raises:
            RunError: another run has taken over. The work of both is compatible, but only one should continue.
        """
        # Others may take over after a whole stale period; half of it leaves time to notice.
        if not self._lost and self._clock() - self._looked > STALE_BEATS * self._beat_seconds / 2:
            with contextlib.suppress(StoreError):
                self._look()
        if self._lost:
            raise RunError(self._lost)

    def release(self) -> None:
        """Release the lease. The epoch is kept, so that the next one is higher."""
        if not self._holder.released:
            self._write(replace(self._holder, released=True))

    def close(self) -> None:
        """Release the lease, unless that is done. The first epoch of a sink that holds nothing else is removed."""
        path = layout.lease_path(self.epoch)
        may_be_alone = self.epoch == 1 and not self._holder.released
        if may_be_alone and [entry.path for entry in islice(self._store.list(layout.HOME), 2)] == [path]:
            self._store.delete(path)
        else:
            self.release()

    def _look(self) -> None:
        highest = highest_epoch(self._store)
        self._looked = self._clock()
        if highest > self.epoch:
            self._lost = _taken_over(self._store, highest, self.epoch)


@contextlib.contextmanager
def held(store: Store) -> Iterator[Lease]:
    """Hold the lease of a sink, with a thread that writes its beats, and close it at the end.

    Raises:
        PlanError: an active run holds the lease.
    """
    beat_seconds, holder = seconds_between_beats(), Holder.now()
    try:
        lease = acquire(store, beat_seconds=beat_seconds, holder=holder)
        done = threading.Event()
        beating = threading.Thread(
            target=_keep_beating, args=(lease, done, beat_seconds), name="raysp-lease", daemon=True
        )
        beating.start()
        try:
            yield lease
        finally:
            done.set()
            # Bounded: a beat may hang in a request to the store.
            beating.join(beat_seconds)
            with contextlib.suppress(StoreError):
                lease.close()
    finally:
        # Also if the answer of the store was lost: the next run of this process does not wait for this one.
        _ended.add(holder.owner)


@contextlib.contextmanager
def work_begun() -> Iterator[None]:
    """Raise failures of the store as RunError: the sink may have changed already.

    Raises:
        RunError: the store refused a request.
    """
    try:
        yield
    except StoreError as error:
        raise RunError(str(error)) from error


def acquire(
    store: Store,
    *,
    beat_seconds: float = BEAT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    holder: Holder | None = None,
) -> Lease:
    """Acquire the lease, from a dead holder if necessary; wait until that is known to be dead.

    Raises:
        PlanError: an active run holds the lease.
    """
    holder = holder or Holder.now()
    while True:
        top = _wait_until_free(store, beat_seconds, clock, sleep)
        # Of several processes that find the lease free, one creates the next epoch.
        if store.create(layout.lease_path(top + 1), _encode(holder)):
            lease = Lease(store, top + 1, holder, beat_seconds, clock)
            epochs = _epochs(store)
            if not any(epoch > lease.epoch for epoch in epochs):
                # The previous one is kept for processes that are reading it.
                with contextlib.suppress(StoreError):
                    for earlier in epochs[: bisect_left(epochs, top)]:
                        store.delete(layout.lease_path(earlier))
                return lease
            # Other runs held this epoch and later ones since the look, and removed its file.
            store.delete(layout.lease_path(top + 1))


def check_epoch(store: Store, epoch: int) -> None:
    """Raise if another run has taken over since an epoch; the store is always read.

    Any process of the holder may call it, since it needs the number of the epoch alone.

    Raises:
        RunError: another run took over.
        StoreError: the epochs cannot be listed.
    """
    if (highest := highest_epoch(store)) > epoch:
        raise RunError(_taken_over(store, highest, epoch))


def _taken_over(store: Store, highest: int, epoch: int) -> str:
    other = _read(store, highest)
    return (
        f"{store.url}: another run took over: {other.words if other else 'unknown'} holds the lease (epoch {highest}, "
        f"this run held {epoch}), because this run's heartbeat had stopped. This run ends, and has replaced no file of "
        "the other one, which continues from what is committed and staged"
    )


def highest_epoch(store: Store) -> int:
    """Return the highest epoch that was ever held; 0 if there was no epoch."""
    return (_epochs(store) or [0])[-1]


def holder(store: Store) -> Holder | None:
    """Return the current or last holder of the lease; None without one, or if it cannot be read."""
    epoch = highest_epoch(store)
    return _read(store, epoch) if epoch else None


def refuse_if_held(store: Store) -> None:
    """Raise if an active run holds the lease. Nothing is acquired or written.

    Raises:
        PlanError: a run is active; the message names its holder.
    """
    _wait_until_free(store, seconds_between_beats())


def seconds_between_beats() -> float:
    """Return the seconds between two beats."""
    return float(os.environ.get(BEAT_VARIABLE) or BEAT_SECONDS)


def _wait_until_free(
    store: Store,
    beat_seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Return the highest epoch, or 0 without an epoch, once it is known that no active run holds it."""
    watched: dict[int, tuple[Holder | None, float]] = {}
    while True:
        epoch = highest_epoch(store)
        current = _read(store, epoch) if epoch else None
        if not epoch or (current and current.is_over):
            return epoch
        if not watched and current:
            log.warning(
                "%s: %s holds the lease; checking for up to %g s whether it is alive",
                store.url, current.words, STALE_BEATS * beat_seconds,
            )  # fmt: skip
        # Beats are compared for change only, and timed by this process: clocks of machines differ.
        before, since = watched.setdefault(epoch, (current, clock()))
        if current != before and current is not None:
            raise PlanError(
                f"{store.url}: {current.words} is running on this sink (its heartbeat was seen {clock() - since:.1f} s "
                "after this run began to check); wait until it has finished or stop it, and run again"
            )
        if clock() - since >= STALE_BEATS * beat_seconds:
            return epoch
        sleep(beat_seconds / POLLS_A_BEAT)


def _keep_beating(lease: Lease, done: threading.Event, beat_seconds: float) -> None:
    while not done.wait(beat_seconds):
        try:
            lease.beat()
        except StoreError as error:  # without a beat another run may take over: only work is duplicated
            log.warning("the heartbeat of the lease could not be written: %s", error)


def _epochs(store: Store) -> list[int]:
    parsed = (layout.parse_lease_path(entry.path) for entry in store.list(layout.LEASE))
    return sorted(epoch for epoch in parsed if epoch is not None)


def _read(store: Store, epoch: int) -> Holder | None:
    """Return the holder of an epoch; None if the file is missing or malformed, which an active holder never leaves."""
    path = layout.lease_path(epoch)
    try:
        if store.stat(path) is None:
            return None
        return records.parse(store.read(path), Holder)
    except StoreError:
        if store.stat(path) is not None:
            raise
        return None  # removed meanwhile, since there is a higher one
    except ValueError as error:
        log.warning("%s/%s: this epoch of the lease cannot be read (%s)", store.url, path, bounds.plain(error))
        return None


def _encode(holder: Holder) -> bytes:
    return json.dumps({**vars(holder), "process": vars(holder.process)}).encode()


class Running(StrEnum):
    """Whether a run is active on a sink, as far as this machine can determine."""

    YES = "yes"
    NO = "no"
    KILLED = "killed"
    """The process of the run has ended without releasing the lease."""
    ELSEWHERE = "elsewhere"
    """It runs, or ran, on another machine, and has not released the lease."""
