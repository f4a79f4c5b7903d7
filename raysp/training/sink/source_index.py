"""Index of a source of a training in its sink: durations, numbers of labels, and why rows are left out.

`.raysp/index/<source>.parquet` has a row for each row of the source. The first row of each shard has its facts, among
them a key of the content of the shard and of everything else that decides: columns, steps, vocabulary. So a shard that
changed, or all shards of another recipe, are indexed again. While shards are indexed, those that are done are written
to files of their own (`.raysp/index/<source>/`) from time to time, so that a kill loses little.

The files that rows name are compared by their versions, as `raysp verify` does for labels. A file that is missing is
not compared: its row fails when it is read, and is counted.
"""

import json
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysp import bounds
from raysp.corpus import sources
from raysp.corpus.parquet import SealedFile, seal
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError, StoreError
from raysp.sink import records
from raysp.sink.commit import ROW_GROUP_ROWS, for_each, grouped
from raysp.sink.footer import Hashes
from raysp.sink.recording_versions import current_hashes, find_replaced
from raysp.sink.records import Natural
from raysp.specs.pipeline import Shards
from raysp.storage.store import Store, explained
from raysp.training.sink import training_record
from raysp.training.sink.training_record import INDEX
from raysp.words import count, listed

INDEX_VERSION = 5
"""Version of the files, part of their keys."""
TRAINED = ""
"""Reason of rows that are trained on."""
PART_SECONDS = 30.0
"""Time of indexing that a kill loses at most."""
SHOWN = 5
"""Rows or shards that a message names."""

_TYPES: Mapping[str, pa.DataType] = {
    "seconds": pa.float32(),
    "num_labels": pa.uint16(),
    "reason": pa.dictionary(pa.int8(), pa.string()),
    "version": pa.uint32(),
}
ROWS = pa.schema(_TYPES)
_FACTS = pa.field("facts", pa.string())
_READ = [*ROWS.names, _FACTS.name]
_FILE = pa.schema([pa.field("shard", pa.string()), pa.field("row", pa.int64()), *ROWS, _FACTS])
_NO_COUNTS: Mapping[str, int] = {}


@dataclass(frozen=True)
class Facts:
    """Facts of a shard, in its first row."""

    shard: str
    key: str
    """Hash of everything that decided the index, as it was written; empty if it was not read from a file."""
    content: str
    """Version of the recordings that the shard itself holds; empty if its rows name files."""
    targets: str
    """Hash of the targets of rows that are trained on."""
    counts: Mapping[str, Natural]
    """Occurrences of each character, word, token or class in rows that are long enough, also in those that are left out
    for their target."""


@dataclass(frozen=True)
class ShardIndex:
    """Index of the rows of one shard.

    Attributes:
        facts: facts of the shard.
        rows: columns `seconds`, `num_labels`, `reason` for which a row is left out, and `version`, a hash of the
            version of the file that the row names (0: none).
    """

    facts: Facts
    rows: pa.Table = field(repr=False)

    @classmethod
    def of(
        cls,
        shard: Shard,
        rows: Sequence[tuple[float, int, str]],
        hashes: Hashes,
        counts: Mapping[str, int] = _NO_COUNTS,
        targets_digest: str = "",
    ) -> "ShardIndex":
        """Return the index of rows with their seconds, numbers of labels, and reasons to be left out or `TRAINED`."""
        seconds, num_labels, reasons = zip(*rows, strict=True) if rows else ((), (), ())
        # Bounded, since a larger number would wrap around.
        labels = np.minimum(np.asarray(num_labels, np.int64), 2**16 - 1).astype(np.uint16)
        columns = [np.asarray(seconds, np.float32), labels, pa.array(reasons, _TYPES["reason"]), hashes.numbers]
        facts = Facts(shard.name, "", content_of(shard), targets_digest, dict(counts))
        return cls(facts, pa.table(columns, schema=ROWS))

    @property
    def hashes(self) -> Hashes:
        """Hashes of the versions of the files that rows name."""
        return Hashes.of_numbers(self.rows.column("version").to_numpy())


Indexed = ShardIndex | str
"""Index of a shard, or why it cannot be read."""
MakeIndexes = Callable[[Sequence[Shard]], Generator[tuple[Shard, Indexed]]]
"""Function that yields shards with their indexes, in any order."""
OnIndexed = Callable[[int, int], None]


def content_of(shard: Shard) -> str:
    """Return the version of the recordings that a shard itself holds; empty if its rows only name files."""
    return f"{shard.num_bytes}:{shard.version}" if sources.kind_named(shard.kind).holds_audio else ""


class SourceIndex:
    """The index of a source in a sink.

    Args:
        store: the sink; None: there is none.
        name: name of the source in the recipe.
        source: the source.
        key: hash of everything besides the shards that affects the index.
        saves: whether the index is written.
    """

    def __init__(self, store: Store | None, name: str, source: Shards, key: str, *, saves: bool = True) -> None:
        self._store, self._name, self._source, self._key = store, name, source, key
        self._saves = saves
        self._path, self._parts = f"{INDEX}{name}.parquet", f"{INDEX}{name}/"

    def complete(
        self, shards: Sequence[Shard], make: MakeIndexes, on_indexed: OnIndexed = lambda done, of: None
    ) -> list[tuple[Shard, Indexed]]:
        """Return shards with their indexes in order; those that are missing are made and written.

        Args:
            shards: the shards.
            make: makes the indexes.
            on_indexed: called with the numbers of indexed shards and of all shards, before each shard and after the
                last; never if all are indexed.

        Raises:
            ChangedError: recordings were replaced since the recorded training began.
            StoreError: the sink or the storage of the recordings fails.
        """
        parts = [entry.path for entry in self._store.list(self._parts)] if self._store else []
        without_rows = {shard.name: ShardIndex.of(shard, (), Hashes.zeros(0)) for shard in shards if not shard.num_rows}
        indexed: dict[str, Indexed] = {**without_rows, **self._valid(shards, parts)}
        absent = [shard for shard in shards if shard.name not in indexed]
        unsaved: list[Shard] = []
        saved = time.monotonic()
        try:
            with closing(make(absent)) as made:
                for done in range(len(shards) - len(absent), len(shards)):
                    on_indexed(done, len(shards))
                    shard, indexed_shard = next(made)
                    indexed[shard.name] = indexed_shard
                    unsaved.append(shard)
                    if time.monotonic() - saved > PART_SECONDS:
                        parts.append(self._write_part(unsaved, indexed))
                        unsaved, saved = [], time.monotonic()
            if absent:
                on_indexed(len(shards), len(shards))
        except BaseException:
            self._write_part(unsaved, indexed)
            raise
        if parts or any(isinstance(indexed[shard.name], ShardIndex) for shard in unsaved):
            self._write(self._path, shards, indexed, merged=parts)
        return [(shard, indexed[shard.name]) for shard in shards]

    def _valid(self, shards: Sequence[Shard], parts: Sequence[str]) -> dict[str, ShardIndex]:
        """Return the indexes of shards that are as they were when they were indexed, by name."""
        if self._store is None:
            return {}
        stored: dict[str, ShardIndex] = {}
        for path in (self._path, *parts):
            stored |= {index.facts.shard: index for index in _read(self._store, path)} if self._store.stat(path) else {}
        there = [shard for shard in shards if shard.name in stored]
        same = [shard for shard in there if stored[shard.name].facts.key == self._key_of(shard)]
        if training_record.is_training(self._store):
            of_recipe = [shard for shard in there if stored[shard.name].facts.key.startswith(self._key)]
            self._refuse_replaced(self._store.url, of_recipe, same, stored)
            # An index of another recipe stays, since this run is refused.
            self._saves &= len(of_recipe) == len(there)
        else:
            hashes = zip(same, for_each(partial(current_hashes, self._source), same), strict=True)
            same = [shard for shard, now in hashes if np.array_equal(stored[shard.name].hashes.by_row, now.by_row)]
        return {shard.name: stored[shard.name] for shard in same}

    def _refuse_replaced(
        self, url: str, of_recipe: Sequence[Shard], same: Sequence[Shard], stored: Mapping[str, ShardIndex]
    ) -> None:
        """Raise ChangedError if shards or recordings were replaced since the recorded training began."""
        compared = for_each(lambda shard: find_replaced(stored[shard.name].hashes, self._source, shard), same)
        rows = ((shard.name, row) for shard, replaced in zip(same, compared, strict=True) for row in replaced.rows)
        of_kinds = {
            "shard": [shard.name for shard in of_recipe if stored[shard.name].facts.content != content_of(shard)],
            "recording": [f"{name}:{row} ({path!r:.80})" for name, (row, path) in rows],
        }
        for kind, names in of_kinds.items():
            if names:
                raise ChangedError(
                    f"{url}: {count(len(names), kind)} of {self._name} {'has' if len(names) == 1 else 'have'} another "
                    f"version than when this training began: {listed(names, SHOWN)}; put the earlier files back with "
                    "their times, use another sink, or start over with --restart",
                    tuple(names),
                )

    def _key_of(self, shard: Shard) -> str:
        return f"{self._key}.{sources.kind_named(shard.kind).rows_id(shard)}"

    def _write_part(self, shards: Sequence[Shard], indexed: Mapping[str, Indexed]) -> str:
        """Write the indexes of some shards to a file of their own, and return its path."""
        path = f"{self._parts}{uuid.uuid4().hex}.parquet"
        if shards:
            self._write(path, shards, indexed)
        return path

    def _write(
        self, path: str, shards: Sequence[Shard], indexed: Mapping[str, Indexed], merged: Sequence[str] = ()
    ) -> None:
        """Write the indexes of shards that can be read, and remove files whose indexes are among them."""
        if self._store is None or not self._saves:
            return
        with self._store.scratch() as scratch:
            with explained("write", f"{self._store.url}/{path}"):
                with pq.ParquetWriter(str(scratch), _FILE, compression="zstd", write_page_checksum=True) as writer:
                    for table in grouped(self._tables(shards, indexed)):
                        writer.write_table(table, row_group_size=table.num_rows)
                seal(scratch)
            self._store.publish(scratch, path, replace=True)
        for part in merged:
            self._store.delete(part)

    def _tables(self, shards: Sequence[Shard], indexed: Mapping[str, Indexed]) -> Iterator[pa.Table]:
        for shard in shards:
            index = indexed[shard.name]
            if isinstance(index, ShardIndex) and shard.num_rows:
                facts = replace(index.facts, key=self._key_of(shard))
                of_rows = [json.dumps(asdict(facts)), *[None] * (shard.num_rows - 1)]
                names, numbers = pa.repeat(shard.name, shard.num_rows), np.arange(shard.num_rows)
                yield pa.table([names, numbers, *index.rows.columns, pa.array(of_rows, pa.string())], schema=_FILE)


def _read(store: Store, path: str) -> list[ShardIndex]:
    """Return the indexes in a file.

    Raises:
        StoreError: it cannot be read, or is damaged.
    """
    try:
        with store.open(path) as file:
            pages = SealedFile.of(file).pages()
            groups = (
                pa.Table.from_batches(pages.batches(group, ROW_GROUP_ROWS, _READ))
                for group in range(pages.metadata.num_row_groups)
            )
            return [index for group in groups for index in _shards_of(group)]
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"{store.url}/{path}: damaged ({bounds.plain(error)}); remove this index, and run again"
        ) from error


def _shards_of(group: pa.Table) -> Iterator[ShardIndex]:
    """Yield the indexes of the shards of a row group; raise ValueError if values are invalid."""
    facts, rows = group.column(_FACTS.name), group.select(ROWS.names).cast(ROWS).combine_chunks()
    seconds = rows.column("seconds").to_numpy()
    if any(column.null_count for column in rows.columns) or not (np.isfinite(seconds) & (seconds >= 0)).all():
        raise ValueError("a duration or a number of labels is not valid")
    for first, end in pairwise([*np.flatnonzero(facts.is_valid()).tolist(), group.num_rows]):
        yield ShardIndex(records.parse(facts[first].as_py(), Facts), rows.slice(first, end - first))
