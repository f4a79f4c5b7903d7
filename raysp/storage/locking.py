"""A file lock that is released when the process that holds it ends."""

import errno
import fcntl
import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysp.errors import StoreError

logger = logging.getLogger(__name__)

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.02
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems without locks: network mounts without a lock server, buckets mounted as folders."""


def flock(descriptor: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file until it is closed.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file system has no such locks.
    """
    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock on a file, which is not removed afterwards.

    Where there are no locks (`flock`), it has no effect, and a warning says so once per folder.

    Raises:
        StoreError: another process has held the lock for `WAIT_SECONDS`, so it is paused.
        OSError: the file cannot be created.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    # The file stays: a process that waits for a removed one would get a lock that later processes do not see.
    with place.open("ab") as file:
        _acquire(file.fileno(), place)
        yield  # closing the file releases the lock


def _acquire(descriptor: int, place: Path) -> None:
    latest = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            flock(descriptor)
            return
        except BlockingIOError:
            if time.monotonic() > latest:
                raise StoreError(
                    f"{place}: another process has held this lock for {WAIT_SECONDS:g} s, so it is paused; "
                    "resume or end it, and run again"
                ) from None
            time.sleep(POLL_SECONDS)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _warn(place.parent, str(error.strerror))
            return


@functools.cache
def _warn(folder: Path, reason: str) -> None:
    logger.warning(
        "%s: files cannot be locked here (%s): of two runs that replace the same file at the same moment, neither "
        "notices the other; start one run at a time",
        folder,
        reason,
    )
