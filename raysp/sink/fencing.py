"""A sink as the holder of an epoch of its lease writes it: nothing of a run that took over is ever replaced.

A replacement first reads which version of the file is there, then whether the epoch is still the highest, and then
replaces that version alone. So a process that is suspended at any moment finds one of the two changed when it wakes.
A removal has no such condition: a process that is suspended after its check can still remove one file.

Trainings write everything through a `FencedStore`. For labels that holds for the records and for what `forget` and `gc`
change; staged results and label shards are safe without it, since they never replace files of other input.
"""

from pathlib import Path

from raysp.errors import StoreError
from raysp.sink import lease
from raysp.storage.store import Entry, Store, explained


def replace_version(store: Store, path: str, data: bytes, *, expected: str | None) -> bool:
    """Write a file in the place of a version; return False without a change if another version is there.

    Args:
        store: the store, or a `FencedStore`, which also refuses to write once another run took over.
        path: path of the file.
        data: the new content.
        expected: version to replace; None: any, and a missing file is created.
    """
    with store.scratch() as scratch:
        with explained("write", f"{store.url}/{path}"):
            scratch.write_bytes(data)
        return store.publish(scratch, path, replace=True, expected=expected) is not None


ATTEMPTS = 10
"""Times that a file may change between a look and its replacement, while the epoch stays the highest."""


class FencedStore:
    """A store whose writes end with an error once another run has taken over its lease.

    Args:
        store: the sink.
        epoch: epoch of the lease over all of it that this run holds.
        own: the lease, which may answer for new files and removals without a request; None: the store is always read.
    """

    def __init__(self, store: Store, epoch: int, own: lease.Lease | None = None) -> None:
        self._store = store
        self._own = own or self
        self.epoch = epoch
        self.url = store.url
        # What changes no file is passed to the store.
        self.list, self.stat, self.read = store.list, store.stat, store.read
        self.open, self.open_version, self.scratch = store.open, store.open_version, store.scratch

    def check(self) -> None:
        """Raise if another run has taken over.

        Raises:
            RunError: another run took over.
            StoreError: the lease cannot be read.
        """
        lease.check_epoch(self._store, self.epoch)

    def create(self, path: str, data: bytes) -> bool:
        """Write a new file. Returns False without a change if it exists."""
        self._own.check()
        return self._store.create(path, data)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, replacing the one that is there, unless another run took over."""
        replace_version(self, path, data, expected=None)

    def delete(self, path: str) -> None:
        """Remove a file."""
        self._own.check()
        self._store.delete(path)

    def publish(self, scratch: Path, path: str, *, replace: bool = False, expected: str | None = None) -> Entry | None:
        """Make a written scratch file visible, as `Store.publish` does, unless another run took over."""
        if not replace and expected is None:
            self._own.check()
            return self._store.publish(scratch, path)
        for _ in range(ATTEMPTS):
            # In this order: a run that takes over before the check changes the epoch, later the version.
            current = self.stat(path) if expected is None else None
            self.check()
            entry = self._store.publish(scratch, path, expected=current.version if current else expected)
            if entry or expected is not None:
                return entry
        raise StoreError(f"{self.url}/{path}: it changed {ATTEMPTS} times while it was replaced; run again to go on")
