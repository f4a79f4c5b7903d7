"""Labels of a sink as a source of Ray Data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.errors import PlanError, StoreError
from raysp.labelling.engine.datasets.table_job import by_name
from raysp.labelling.planning.trust import Recorded, read_recorded, refusal
from raysp.sink.commit import committed
from raysp.sink.label_rows import Cursor, read_labels
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Pipeline
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.storage.options import GivenOptions, options_of
from raysp.storage.store import Entry

if TYPE_CHECKING:
    from ray.data import DataContext


@dataclass(frozen=True)
class _Reading:
    """Columns to read of each label shard and of its shard."""

    sink: Sink
    columns: tuple[str, ...] | None
    """Columns of the label shards; None: all."""
    beside: tuple[str, ...]
    """Columns of the shards."""
    options: GivenOptions
    """Storage options of the shards."""

    def __call__(self, shards: Sequence[tuple[Shard, Entry]]) -> Iterator[pa.Table]:
        """Yield the rows of label shards.

        Raises:
            StoreError: a label shard was replaced or removed.
            ShardError: a shard changed since it was planned.
        """
        for shard, entry in shards:
            yield from self._with_shard(shard, entry) if self.beside else self._labels(shard, entry, self.columns)

    def _labels(self, shard: Shard, entry: Entry, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        tables = read_labels(self.sink.store, shard, None if columns is None else [*columns])
        yield next(tables)  # the file is open, so a later replacement has no effect
        found = self.sink.store.stat(shard.name)
        if found is None or found.version != entry.version:
            raise StoreError(
                f"{self.sink.url}/{shard.name}: was {'removed' if found is None else 'replaced'} after "
                "raysp.datasource was called; call it again"
            )
        yield from tables

    def _with_shard(self, shard: Shard, entry: Entry) -> Iterator[pa.Table]:
        """Yield label rows with columns of their shard, piece by piece."""
        columns = None if self.columns is None else [*dict.fromkeys([*self.columns, "row"])]
        labels = Cursor(self._labels(shard, entry, columns))
        for piece in shard.pieces:
            found = labels.until(piece.end)
            assert found is not None
            rows = found.column("row").to_numpy() - piece.first
            source = sources.read_table(shard, piece, self.beside, options_of(self.options))
            source = source if len(rows) == piece.num_rows else source.take(pa.array(rows))
            chosen = found if self.columns is None else found.select([*self.columns])
            yield pa.table({**by_name(chosen), **by_name(source)})


class LabelShards(Datasource):
    """The committed label shards of a sink, for `ray.data.read_datasource`.

    Args:
        reading: columns to read.
        shards: shards with the entries of their label shards.
    """

    def __init__(self, reading: _Reading, shards: Sequence[tuple[Shard, Entry]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reading = reading
        self._shards = tuple(shards)

    def __len__(self) -> int:
        """Return the number of label shards."""
        return len(self._shards)

    def estimate_inmemory_data_size(self) -> int:
        """Return the stored bytes of the label shards and of the shards read beside them."""
        return sum(map(self._bytes, self._shards))

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: "DataContext | None" = None
    ) -> list[ReadTask]:
        """Return tasks that read some label shards each."""
        number = min(max(1, parallelism), len(self._shards))
        groups = [self._shards[len(self) * k // number : len(self) * (k + 1) // number] for k in range(number)]
        return [
            ReadTask(_read(self._reading, group), self._metadata(group), per_task_row_limit=per_task_row_limit)
            for group in groups
        ]

    def _bytes(self, one: tuple[Shard, Entry]) -> int:
        shard, entry = one
        return entry.num_bytes + (shard.num_bytes if self._reading.beside else 0)

    def _metadata(self, group: Sequence[tuple[Shard, Entry]]) -> BlockMetadata:
        files = tuple(f"{self._reading.sink.url}/{shard.name}" for shard, _ in group)
        return BlockMetadata(num_rows=None, size_bytes=sum(map(self._bytes, group)), exec_stats=None, input_files=files)


def _read(reading: _Reading, group: Sequence[tuple[Shard, Entry]]) -> "Callable[[], Iterator[pa.Table]]":
    return lambda: reading(group)


def datasource(
    sink: str,
    storage_options: GivenOptions | None = None,
    *,
    columns: Sequence[str] | None = None,
    beside: Sequence[str] = (),
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> LabelShards:
    """Return the labels of a sink as a source for `ray.data.read_datasource`.

    It holds the label shards that are committed now. One that is replaced later is not read: the dataset raises.

    Args:
        sink: url of the sink.
        storage_options: options to reach it; None: those of `pipeline`, or the recorded ones if they may be used.
        columns: columns of the label shards; None: all.
        beside: columns of the audio shards to read beside the labels, such as ["audio"].
        pipeline: pipeline that made the labels; its storage options are used.
        trust: use the recorded source and storage options, regardless of who recorded them.

    Raises:
        PlanError: there is no sink at this url, or a column does not exist.
        TrustError: `beside` is given, and the recorded source may not be used.
    """
    recorded = read_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    opened, record = recorded.sink, recorded.record
    shards = opened.shards()
    found = committed(opened.store, shards, record.fingerprint, repair=False, file_id=hash_parts(record.file_parts))
    entries = {entry.path: entry for entry in opened.store.list() if entry.path in found.done}
    labelled = [(shard, entries[shard.name]) for shard in shards if shard.name in entries]
    options = _source_options(recorded, [shard for shard, _ in labelled]) if beside else {}
    if labelled:
        _check_columns(opened, labelled[0][0], columns, beside)
    return LabelShards(_Reading(opened, None if columns is None else tuple(columns), tuple(beside), options), labelled)


def _source_options(recorded: Recorded, shards: Sequence[Shard]) -> GivenOptions:
    """Return the storage options of the source.

    Raises:
        TrustError: the source may not be used.
    """
    pipeline = recorded.trusted_pipeline()
    if outside := recorded.outside(shards):
        raise refusal(recorded.sink.url, [f"a shard at {one!r}" for one in outside])
    return pipeline.source.storage_options


def _check_columns(sink: Sink, shard: Shard, columns: Sequence[str] | None, beside: Sequence[str]) -> None:
    """Raise if the first label shard lacks a column, or has one that is also read beside it."""
    with sink.store.open(shard.name) as file:
        there = pq.read_schema(file).names
    if missing := [name for name in columns or () if name not in there]:
        raise PlanError(f"{sink.url}: columns={missing}: not in its label shards, which have {', '.join(there)}")
    read = there if columns is None else columns
    if twice := [name for name in beside if name in read]:
        raise PlanError(
            f"{sink.url}: beside={twice}: the label shards have columns of the same names; leave these out of beside=, "
            "or give columns= without them"
        )
