"""The export of one label shard, or of neighbours that are written together, in any process.

Label shards are independent, and each has its own mark: the files do not depend on the process that writes them, and
an export may go on with another number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from raysp.corpus.shards import Shard
from raysp.errors import StoreError
from raysp.verbs.export.destination import RECORD, Destination, ShardFiles, ShardMark
from raysp.verbs.export.formats import Packing, Writing


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

    writing: Writing | Packing
    destination: Destination

    def __call__(self, todo: Todo) -> Exported:
        """Write the files of a label shard."""
        files = ShardFiles(self.destination, todo.name)
        if isinstance(self.writing, Packing):
            self.writing.pack(todo.shards, files)
        else:
            for shard in todo.shards:
                self.writing(shard, files)
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
