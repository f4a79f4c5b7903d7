"""The export of one label shard, or of neighbours that are written together, in any process.

Label shards are independent, and each has its own mark: the files do not depend on the process that writes them, and
an export may go on with another number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from raysp.corpus.shards import Shard
from raysp.errors import StoreError
from raysp.verbs.export.destination import RECORD, Destination, ShardFiles, ShardMark, Tally
from raysp.verbs.export.naming import Named


class Writer:
    """Export of label shards to one format."""

    named: Named | None = None
    """Names of the files of rows; None in formats without such files."""

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the files of a label shard."""
        raise NotImplementedError

    def pack(self, shards: Sequence[Shard], files: ShardFiles) -> None:
        """Write the files of a label shard, or of small neighbours that share them."""
        for shard in shards:
            self(shard, files)

    def expected_bytes(self, shard: Shard) -> float:
        """Return the bytes that the rows of a label shard probably take in shared files, from the plan alone."""
        raise NotImplementedError

    def finish(self, destination: Destination, total: Tally) -> int:
        """Write the files of the whole export, and return the change of the number of files."""
        return 0


@dataclass(frozen=True)
class Todo:
    """A label shard to export, or neighbours that are written together."""

    name: str
    """Name of the first one, finished or not."""
    shards: tuple[Shard, ...]
    """Those that are finished."""
    identity: str
    """Hash of their versions and of their input."""


@dataclass(frozen=True)
class Exported:
    """A label shard whose files are all there."""

    mark: ShardMark
    lost: Sequence[str] = ()
    """Paths of files of earlier exports that were removed or changed since, and were written again."""


@dataclass(frozen=True)
class ShardExport:
    """Export of one label shard after the other."""

    writing: Writer
    destination: Destination

    def __call__(self, todo: Todo) -> Exported:
        """Write the files of a label shard."""
        files = ShardFiles(self.destination, todo.name)
        self.writing.pack(todo.shards, files)
        return Exported(files.finish(todo.identity), files.lost)

    def elsewhere(self, todo: Todo) -> Exported:
        """Write the files of a label shard for another process.

        Raises:
            StoreError: this process does not see the destination.
        """
        if self.destination.store.stat(RECORD) is None:
            raise StoreError(
                f"{self.destination.store.url}: this process of the export does not see the files of the others. "
                "Use a location that all machines share"
            )
        return self(todo)
