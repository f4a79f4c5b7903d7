"""The commit: staged results become a label shard, visible in one atomic step, once.

The label shard itself is the commit. The marker and the removal of the stage that follow only save work, so a process
may die between any two steps, and two may do the same at once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp.errors import ChangedError, PlanError, RunError, ShardError, StoreError
from raysp.io.shards import Piece, Shard
from raysp.io.store import Store, explain
from raysp.sink import footer, layout, stage
from raysp.sink.receipts import ShardReceipt

_RESULT_COLUMNS: Mapping[str, pa.DataType] = {
    "row": pa.int64(),
    "seconds": pa.float64(),
    "status": pa.string(),
    "error_type": pa.string(),
    "error_message": pa.string(),
}
RESULT_SCHEMA = pa.schema(_RESULT_COLUMNS)
"""The columns that every staged block begins with; the outputs follow."""

ROW_GROUP_BYTES = 64 * 1024 * 1024  # of Arrow memory: what a commit holds at a time, besides one piece
ROW_GROUP_ROWS = 128 * 1024

Compression = Literal["zstd", "snappy", "gzip", "lz4", "none"]
SourceColumns = Callable[[Piece], pa.Table]


@dataclass(frozen=True)
class Committed:
    """Which shards need nothing more."""

    done: frozenset[str]
    foreign: Mapping[str, str]
    """Shards in whose place lies something that this pipeline did not make of this input, and why that is known."""


def commit(
    store: Store,
    shard: Shard,
    *,
    fingerprint: str,
    source_columns: SourceColumns,
    output_schema: pa.Schema,
    rows: Literal["all", "ok"] = "all",
    compression: Compression = "zstd",
    metadata: Mapping[str, str] | None = None,
    join: stage.Join | None = None,
) -> ShardReceipt:
    """Make the label shard of a shard whose pieces are all staged; one that is there already is success.

    Columns: those of `source_columns`, `RESULT_SCHEMA`, `output_schema`. Rows in the order of the shard.

    Args:
        store: the sink.
        shard: as recorded.
        fingerprint: of the pipeline.
        source_columns: gives id and kept columns of a piece's rows in their order; asked for an empty piece when the
            shard has no rows.
        output_schema: of the staged columns behind `RESULT_SCHEMA`.
        rows: "ok" leaves the other rows out and keeps them in `.raysp/errors/`.
        compression: of the Parquet file.
        metadata: added to the file's metadata.
        join: makes rows of the windows of longer ones.

    Raises:
        ChangedError: Something else lies in the label shard's place.
        RunError: Staged blocks are missing or do not make up the shard's rows (they are removed then).
    """
    label_shard = _LabelShard(
        shard, fingerprint, source_columns, output_schema, rows, compression, metadata or {}, join
    )
    receipt = _find(store, shard, fingerprint) or _make(store, label_shard)
    store.create(layout.done_path(shard.name, shard.input_id, fingerprint), b"")
    stage.remove(store, shard.name)
    return receipt


def committed(store: Store, shards: Iterable[Shard], fingerprint: str, *, mend: bool = True) -> Committed:
    """Tell which shards are committed, by one listing and the footers of label shards without a marker.

    Args:
        store: the sink.
        shards: as recorded.
        fingerprint: of the pipeline.
        mend: write the markers that are missing.
    """
    files, markers = _list(store)
    done: set[str] = set()
    foreign: dict[str, str] = {}
    for shard in shards:
        if shard.name not in files:
            continue
        marker = layout.done_path(shard.name, shard.input_id, fingerprint)
        try:
            if marker not in markers:
                footer.read_expected(store, shard, fingerprint)
                if mend:
                    store.create(marker, b"")
            done.add(shard.name)
        except ChangedError as error:
            foreign[shard.name] = str(error)
    return Committed(frozenset(done), foreign)


@dataclass(frozen=True)
class _LabelShard:
    """What `commit` was asked for."""

    shard: Shard
    fingerprint: str
    source_columns: SourceColumns
    output_schema: pa.Schema
    rows: Literal["all", "ok"]
    compression: Compression
    metadata: Mapping[str, str]
    join: stage.Join | None


@dataclass
class _Tally:
    """Counts over the rows that went by."""

    rows: int = 0
    seconds: float = 0.0
    by_status: Counter[str | None] = field(default_factory=Counter)
    by_type: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self.seconds += pc.sum(table.column("seconds"), min_count=0).as_py() or 0.0
        self.by_status.update(table.column("status").to_pylist())
        self.by_type.update(reason for reason in table.column("error_type").to_pylist() if reason is not None)

    def receipt(self, shard: Shard) -> ShardReceipt:
        if self.rows != shard.num_rows or self.by_status.keys() - {"ok", "skipped", "error"}:
            raise RunError(
                f"shard {shard.name!r}: {self.rows} rows with status {dict(self.by_status)}, expected {shard.num_rows} "
                "rows that are ok, skipped or error; this is a bug of raysp: report it with the plan"
            )
        return ShardReceipt(
            shard=shard.name,
            rows=self.rows,
            ok=self.by_status["ok"],
            skipped=self.by_status["skipped"],
            error=self.by_status["error"],
            errors_by_type=dict(sorted(self.by_type.items())),
            seconds=self.seconds,
        )


def _list(store: Store) -> tuple[set[str], set[str]]:
    """Tell files that readers see from markers."""
    files: set[str] = set()
    markers: set[str] = set()
    for entry in store.list():
        if entry.path.startswith(layout.DONE):
            markers.add(entry.path)
        elif not entry.path.startswith(layout.HOME):
            files.add(entry.path)
    return files, markers


def _find(store: Store, shard: Shard, fingerprint: str) -> ShardReceipt | None:
    return footer.read_expected(store, shard, fingerprint) if store.stat(shard.name) else None


def _make(store: Store, label_shard: _LabelShard) -> ShardReceipt:
    """Write and publish; where another process was faster, its label shard is the result."""
    shard = label_shard.shard
    try:
        receipt = _write(store, label_shard)
    except (RunError, StoreError):  # such as: the faster one has removed the stage
        receipt = None
        if store.stat(shard.name) is None:
            raise
    receipt = receipt or _find(store, shard, label_shard.fingerprint)
    if receipt is None:
        raise RunError(
            f"{store.url}/{shard.name}: the label shard was there and is gone; does something else remove it?"
        )
    return receipt


def _write(store: Store, label_shard: _LabelShard) -> ShardReceipt | None:
    """Write a label shard and publish it; None when one is there by then."""
    name = label_shard.shard.name
    with store.scratch() as scratch, store.scratch() as rest_scratch:
        try:
            receipt = _fill(scratch, rest_scratch, _tables(store, label_shard), label_shard)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise explain(error, "write", f"{store.url}/{name}") from error
        if rest_scratch.exists():
            store.publish(rest_scratch, layout.errors_path(name), replace=True)
        return receipt if store.publish(scratch, name) else None


def _fill(scratch: Path, rest_scratch: Path, tables: Iterator[pa.Table], label_shard: _LabelShard) -> ShardReceipt:
    """Write the label shard into one scratch file, and into the other the rows that it leaves out, if any.

    Those are an Arrow stream: Arrow's file format has no place for dictionaries that change on the way.
    """
    tally = _Tally()
    first = next(tables)
    with ExitStack() as files:
        writer = files.enter_context(pq.ParquetWriter(str(scratch), first.schema, compression=label_shard.compression))
        rest_writer: pa.RecordBatchStreamWriter | None = None
        for table in _grouped(chain([first], tables)):
            tally.add(table)
            is_ok = pc.equal(table.column("status"), pa.scalar("ok"))
            if label_shard.rows == "ok" and not pc.all(is_ok, min_count=0).as_py():
                rest_writer = rest_writer or files.enter_context(pa.ipc.new_stream(str(rest_scratch), first.schema))
                rest_writer.write_table(table.filter(pc.invert(is_ok)))
                table = table.filter(is_ok)
            if table.num_rows:
                writer.write_table(table)
        receipt = tally.receipt(label_shard.shard)
        writer.add_key_value_metadata(
            footer.encode(
                receipt,
                fingerprint=label_shard.fingerprint,
                input_id=label_shard.shard.input_id,
                metadata=label_shard.metadata,
            )
        )
    return receipt


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join neighbouring tables into row groups of a sensible size."""
    waiting: list[pa.Table] = []
    num_bytes = num_rows = 0
    for table in tables:
        waiting.append(table)
        num_bytes, num_rows = num_bytes + table.nbytes, num_rows + table.num_rows
        if num_bytes >= ROW_GROUP_BYTES or num_rows >= ROW_GROUP_ROWS:
            yield pa.concat_tables(waiting)
            waiting, num_bytes, num_rows = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def _tables(store: Store, label_shard: _LabelShard) -> Iterator[pa.Table]:
    """Yield the label shard's rows in their order, at most a row group at a time; an empty table if there are none."""
    shard, schema = label_shard.shard, None
    for piece in shard.pieces or (Piece(0, 0),):
        source = _read_source(label_shard, piece)
        schema = schema or _schema(source, label_shard)
        if piece.num_rows:
            yield from _in_order(store, label_shard, piece, source, schema)
        else:
            yield schema.empty_table()


def _read_source(label_shard: _LabelShard, piece: Piece) -> pa.Table:
    shard = label_shard.shard
    try:
        source = label_shard.source_columns(piece)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise explain(error, "read", shard.url) from error
    if source.num_rows != piece.num_rows:
        raise ShardError(
            f"{shard.url}: {source.num_rows} rows from {piece.first} to {piece.end}, expected {piece.num_rows}; "
            "was the shard changed after it was planned?"
        )
    return source


def _schema(source: pa.Table, label_shard: _LabelShard) -> pa.Schema:
    """Put the columns together; metadata of the source's fields would speak of another file."""
    schema = pa.schema(
        [*(field.remove_metadata() for field in source.schema), *RESULT_SCHEMA, *label_shard.output_schema]
    )
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise PlanError(
            f"{label_shard.shard.url}: the label shard would have two columns named {twice}; keep or name others"
        )
    return schema


def _in_order(
    store: Store, label_shard: _LabelShard, piece: Piece, source: pa.Table, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield a piece's source columns and staged results side by side."""
    shard = label_shard.shard
    try:
        staged, order = stage.open_piece(
            store, shard.name, piece, shard.input_id, label_shard.fingerprint, label_shard.join
        )
    except stage.BrokenStageError:
        stage.discard(store, shard.name, piece)
        raise
    if differing := _differing_types(staged, schema, source.num_columns):
        raise RunError(f"{store.url}: staged results of {shard.name!r}: {differing}; this is a bug of raysp: report it")
    if differing := _differing_types(source, schema, 0):
        raise ShardError(f"{shard.url}: {differing}, as in its first rows; write it with one type")
    staged = staged.select(schema.names[source.num_columns :])
    num_rows = max(1, piece.num_rows * ROW_GROUP_BYTES // (source.nbytes + staged.nbytes))
    for first in range(0, piece.num_rows, num_rows):
        results = staged.take(order.slice(first, num_rows))
        yield pa.Table.from_arrays([*source.slice(first, num_rows).columns, *results.columns], schema=schema)


def _differing_types(table: pa.Table, schema: pa.Schema, first_column: int) -> str:
    """Name the first column whose type is not that of the schema, which has the table's from `first_column` on."""
    for expected in list(schema)[first_column : first_column + table.num_columns]:
        found = table.schema.field(expected.name).type if expected.name in table.schema.names else None
        if found != expected.type:
            return f"column {expected.name!r} is {found or 'missing'}, expected {expected.type}"
    return ""
