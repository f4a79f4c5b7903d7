"""Writers of text files: one file per row, or one file of lines per label shard."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from raysp.corpus.shards import Shard
from raysp.labelling.finished.finished_labels import Labelling
from raysp.verbs.export.destination import PARTS, Destination, ShardFiles, Tally
from raysp.verbs.export.export_rows import Row, by_channel, every_row, id_of, ok_rows, seconds_of, stem_of, to_rows
from raysp.verbs.export.naming import Named
from raysp.verbs.export.shard_export import Writer

Lines = Callable[[Row, str], str]
"""Callable that returns the lines of a row and its id, in a file of a label shard."""
Count = Callable[[Row, ShardFiles], None]
"""Callable that counts the parts of a row that the format cannot hold as they are."""


@dataclass(frozen=True)
class RowFiles(Writer):
    """Export of a file for each row."""

    labelling: Labelling
    named: Named = field()  # without the default of the base
    suffix: str
    columns: list[str]
    text: Callable[[Row], str]
    """Content of the file of a row."""
    count: Count
    channels: Sequence[str] = ()
    """Columns with an entry for each channel, of which each has a file of its own."""

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the files of a label shard."""
        name = self.named.names.of(shard)
        for table in ok_rows(self.labelling, shard, self.columns, files):
            rows = to_rows(table)
            named = [(name(row), row) for row in rows]
            files.put((f"{path}{self.suffix}", self.text(row).encode()) for path, row in self._parts(named))
            _count(files, rows, self.count)
        files.remove_outdated(self.suffix, lambda path: self.named.names.is_elsewhere(self._of_row(path), shard))

    def _parts(self, named: Sequence[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
        """Yield rows with their paths, or their channels with the path and the number of the channel."""
        for path, row in named:
            if self.channels:
                channels = enumerate(by_channel(row, self.channels), 1)
                yield from ((f"{path}.{number}", channel) for number, channel in channels)
            else:
                yield path, row

    def _of_row(self, path: str) -> str:
        """Return the name of a row from the path of a file of it, without the suffix."""
        return path.rpartition(".")[0] if self.channels else path


@dataclass(frozen=True)
class LineFiles(Writer):
    """Export of a file of lines for each label shard."""

    labelling: Labelling
    suffix: str
    columns: list[str] | None
    lines: Callable[[Shard], Lines]
    one_file: bool = False
    """Whether the files are parts of one file, `labels` and the suffix."""
    head: str = ""
    """First line of each file."""
    all_rows: bool = False
    """Whether rows that are not ok are written, too."""
    count: Count | None = None

    def path(self, shard: Shard) -> str:
        """Return the path of the file of a label shard."""
        return f"{PARTS if self.one_file else ''}{stem_of(shard)}{self.suffix}"

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the file of a label shard."""
        lines = self.lines(shard)
        with files.file(self.path(shard), is_hashed=True) as scratch, scratch.open("wb") as file:
            file.write(b"" if self.one_file else self.head.encode())
            rows_of = every_row if self.all_rows else ok_rows
            for table in rows_of(self.labelling, shard, self.columns, files):
                rows = to_rows(table)
                file.writelines(lines(row, id_of(row, shard)).encode() for row in rows)
                _count(files, rows, self.count)

    def finish(self, destination: Destination, total: Tally) -> int:
        """Join the parts of one file, and return the change of the number of files."""
        if not self.one_file:
            return 0
        done = self.labelling.finished_shards
        parts = map(destination.store.read, map(self.path, done))
        with destination.whole() as files, files.file(f"labels{self.suffix}", is_hashed=True) as scratch:
            scratch.write_bytes(self.head.encode())
            with scratch.open("ab") as file:
                file.writelines(parts)
        return 1 - len(done)


def _count(files: ShardFiles, rows: list[dict[str, object]], count: Count | None) -> None:
    files.tally.rows += len(rows)
    files.tally.seconds += sum(map(seconds_of, rows))
    if count:
        for row in rows:
            count(row, files)
