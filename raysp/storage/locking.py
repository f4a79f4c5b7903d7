"""A file lock that is released when the process that holds it ends."""

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysp.errors import StoreError

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.02
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of file systems without locks: network mounts without a lock server, buckets mounted as folders."""


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock on a file, which is not removed afterwards. Without effect where the file system has no locks.

    Raises:
        StoreError: another process has held the lock for `WAIT_SECONDS`, so it is paused.
        OSError: the file cannot be created.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("ab") as file:
        _acquire(file.fileno(), place)
        yield  # closing the file releases the lock


def _acquire(descriptor: int, place: Path) -> None:
    latest = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
            return
