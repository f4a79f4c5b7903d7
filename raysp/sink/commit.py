"""The commit: staged results become a label shard, visible in one atomic step, once.

The label shard itself is the commit. The marker and the removal of the stage that follow only save work, so a process
may die between any two steps, and two may do the same at once. A label shard that is there stays as it is, unless a
relabelling or a retry replaces it, whole and in one step as well. A commit removes nothing but what it staged itself:
files that another label shard may need are removed by `raysp gc` alone.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp.corpus.shards import Piece, Shard
from raysp.errors import ChangedError, PlanError, RunError, ShardError, StoreError
from raysp.sink import failing, footer, layout, recordings, run_record, stage
from raysp.sink.receipts import ShardReceipt
from raysp.sink.recordings import ChangedRecordingsError, Hashes
from raysp.sink.word_errors import TextColumns, WordErrors
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.storage.store import Store, explain

_RESULT_COLUMNS: Mapping[str, pa.DataType] = {
    "row": pa.int64(),
    "seconds": pa.float64(),
    "status": pa.string(),
    "error_type": pa.string(),
    "error_message": pa.string(),
}
RESULT_SCHEMA = pa.schema(_RESULT_COLUMNS)
"""The columns that every staged block begins with; the outputs follow."""

ROW_GROUP_BYTES = (
    64 * 1024 * 1024
)  # of Arrow memory: what a commit holds at a time, besides what it carries over of a piece's source
ROW_GROUP_ROWS = 128 * 1024
FOOTERS_AT_ONCE = 16

PEAK = 6
"""Bytes that a commit holds at most for each that it sorts or writes at a time (docs/performance.md)."""

Compression = Literal["zstd", "snappy", "gzip", "lz4", "none"]
Rows = Literal["all", "ok"]
T = TypeVar("T")
SourceColumns = Callable[[Piece], pa.Table]


@dataclass(frozen=True)
class Committed:
    """Which shards need nothing more."""

    done: frozenset[str]
    foreign: Mapping[str, str]
    """Shards in whose place lies something that this pipeline did not make of this input, and why that is known."""
    outdated: frozenset[str] = frozenset()
    """Those of `foreign` that raysp made, so that a relabelling may replace them."""


def commit(
    store: Store,
    shard: Shard,
    *,
    fingerprint: str,
    source_columns: SourceColumns,
    output_schema: pa.Schema,
    rows: Rows = "all",
    compression: Compression = "zstd",
    metadata: Mapping[str, str] | None = None,
    join: stage.Join | None = None,
    file_id: str = "",
    replace: bool = False,
    versions: recordings.Versions | None = None,
    is_replaced: Callable[[], bool] | None = None,
    stage_id: str = "",
    texts: TextColumns | None = None,
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
        file_id: hash of what changes the file but no label.
        replace: a relabelling: put it in the place of a label shard of other input, of another pipeline or with other
            columns.
        versions: of the files that rows name; None where none is read by path.
        is_replaced: returns whether such files were replaced after the label shard was made; asked with `replace`.
        stage_id: stands for the fingerprint in the names of staged results; empty: the fingerprint does.
        texts: columns whose word errors are counted; None: nothing is compared.

    Raises:
        ChangedError: Something else lies in the label shard's place.
        ChangedRecordingsError: Files were replaced after they were labelled; the pieces named are no longer staged.
        RunError: Staged blocks are missing or do not make up the shard's rows (they are removed then).
    """
    expected = _version(store, shard.name) if replace else None  # of before anything else is looked at
    blocks = stage.listed(store, shard.name, shard.input_id, stage_id or fingerprint)
    label_shard = LabelShard(
        shard,
        fingerprint,
        source_columns,
        output_schema,
        rows,
        compression,
        metadata or {},
        join,
        file_id,
        replace,
        versions,
        is_replaced,
        stage_id or fingerprint,
        blocks,
        texts,
    )
    # A label shard that is there is met only where commits race, and then when this one is published.
    receipt = _find(store, label_shard) if replace or not blocks else None
    receipt = receipt or _make(store, label_shard, expected)
    store.create(layout.done_path(shard.name, shard.input_id, fingerprint), b"")
    with failing.passing("stage_removed"):
        stage.remove_listed(store, blocks)
    return receipt


def memory(num_rows: int, staged_bytes: int) -> int:
    """Return about the bytes of memory that the commit of so many rows takes at most; a row is never cut in two."""
    return PEAK * min(staged_bytes, max(ROW_GROUP_BYTES, staged_bytes // max(1, num_rows)))


def committed(
    store: Store, shards: Iterable[Shard], fingerprint: str, *, mend: bool = True, file_id: str = "", trust: bool = True
) -> Committed:
    """Tell which shards are committed, by one listing and the footers of label shards without a marker.

    Where something was ever relabelled, footers decide alone: a process that comes late may leave a marker of what
    has been replaced since.

    Args:
        store: the sink.
        shards: as recorded.
        fingerprint: of the pipeline.
        mend: write the markers that are missing.
        file_id: hash of what changes the file but no label; empty where that does not matter.
        trust: take a marker for what it says; False: look into every footer.
    """
    files, markers, relabelled = _list(store)
    done: set[str] = set()
    unsure: list[Shard] = []
    for shard in shards:
        if shard.name in files:
            sure = trust and not relabelled and layout.done_path(shard.name, shard.input_id, fingerprint) in markers
            done.add(shard.name) if sure else unsure.append(shard)
    foreign: dict[str, str] = {}
    outdated: set[str] = set()
    for shard, found in zip(unsure, _read_footers(store, unsure, fingerprint, file_id), strict=True):
        if isinstance(found, ShardReceipt):
            done.add(shard.name)
            marker = layout.done_path(shard.name, shard.input_id, fingerprint)
            if mend and marker not in markers:
                store.create(marker, b"")
            continue
        foreign[shard.name] = str(found)
        if isinstance(found, footer.OutdatedError):
            outdated.add(shard.name)
    return Committed(frozenset(done), foreign, frozenset(outdated))


def _read_footers(
    store: Store, shards: Sequence[Shard], fingerprint: str, file_id: str
) -> Iterable[ShardReceipt | ChangedError]:
    def read(shard: Shard) -> ShardReceipt | ChangedError:
        try:
            return footer.read_expected(store, shard, fingerprint, file_id)
        except ChangedError as error:
            return error

    return for_each(read, shards)


def for_each(work: Callable[[Shard], T], shards: Sequence[Shard]) -> list[T]:
    """Do a little work, which mostly waits for the store, on each shard; where they are many, on some at once."""
    if len(shards) < FOOTERS_AT_ONCE:
        return [work(shard) for shard in shards]
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        return list(pool.map(work, shards))


@dataclass(frozen=True)
class LabelShard:
    """What `commit` was asked for."""

    shard: Shard
    fingerprint: str
    source_columns: SourceColumns
    output_schema: pa.Schema
    rows: Rows
    compression: Compression
    metadata: Mapping[str, str]
    join: stage.Join | None = None
    file_id: str = ""
    replace: bool = False
    versions: recordings.Versions | None = None
    is_replaced: Callable[[], bool] | None = None
    stage_id: str = ""
    blocks: Mapping[Piece, Sequence[stage.BlockName]] | None = None
    """As listed; None: each piece's are listed when it is read."""
    texts: TextColumns | None = None


@dataclass
class Tally:
    """Counts over the rows that went by."""

    rows: int = 0
    seconds: float = 0.0
    by_status: Counter[str | None] = field(default_factory=Counter)
    by_type: Counter[str] = field(default_factory=Counter)
    texts: TextColumns | None = None
    word_errors: WordErrors = field(default_factory=WordErrors)

    def add(self, table: pa.Table) -> None:
        """Count a table's rows."""
        self.rows += table.num_rows
        self.seconds += pc.sum(table.column("seconds"), min_count=0).as_py() or 0.0
        self.by_status.update(table.column("status").to_pylist())
        self.by_type.update(reason for reason in table.column("error_type").to_pylist() if reason is not None)
        if self.texts is not None:
            self.word_errors.count(table, self.texts)

    def receipt(self, shard: Shard) -> ShardReceipt:
        """Sum up, once all rows of the shard went by."""
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
            word_errors=self.word_errors.to_counts(),
        )


def _list(store: Store) -> tuple[set[str], set[str], bool]:
    """Tell files that readers see from markers, and whether anything was ever relabelled."""
    files: set[str] = set()
    markers: set[str] = set()
    relabelled = False
    for entry in store.list():
        if entry.path.startswith(layout.DONE):
            markers.add(entry.path)
        elif not entry.path.startswith(layout.HOME):
            files.add(entry.path)
        relabelled = relabelled or entry.path == layout.RELABELLED
    return files, markers, relabelled


def _find(store: Store, label_shard: LabelShard) -> ShardReceipt | None:
    """Read the receipt of a label shard that is there; None when there is none, or one that is to be replaced."""
    shard = label_shard.shard
    if store.stat(shard.name) is None:
        return None
    try:
        receipt = footer.read_expected(store, shard, label_shard.fingerprint, label_shard.file_id)
    except footer.OutdatedError:
        if label_shard.replace:
            return None
        raise
    is_old = label_shard.replace and label_shard.is_replaced is not None and label_shard.is_replaced()
    return None if is_old else receipt


def _make(store: Store, label_shard: LabelShard, expected: str | None) -> ShardReceipt:
    """Write and publish; where another process was faster, its label shard is the result."""
    shard = label_shard.shard
    hashes = Hashes.of_none(shard.num_rows)
    try:
        with closing(_tables(store, label_shard, hashes)) as tables:
            receipt = write(store, label_shard, tables, hashes, expected=expected)
    except (RunError, StoreError):  # such as: the faster one has removed the stage
        if (receipt := _find(store, label_shard)) is None:
            raise
    receipt = receipt or _find(store, label_shard)
    if receipt is None:
        raise RunError(
            f"{store.url}/{shard.name}: another process replaced or removed the label shard meanwhile; run again"
        )
    return receipt


def write(
    store: Store,
    label_shard: LabelShard,
    tables: Iterator[pa.Table],
    hashes: Hashes,
    *,
    expected: str | None,
) -> ShardReceipt | None:
    """Write a label shard from tables in the order of its rows and publish it; None when another process did meanwhile.

    Args:
        store: the sink.
        label_shard: what to write.
        tables: its rows.
        hashes: filled as the tables come.
        expected: version of the label shard to replace, taken before its rows were looked at; None: create it, and
            only if none is there.
    """
    name = label_shard.shard.name
    with store.scratch() as scratch, store.scratch() as rest_scratch:
        try:
            receipt, rest_id = _fill(scratch, rest_scratch, tables, label_shard, hashes)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise explain(error, "write", f"{store.url}/{name}") from error
        if label_shard.replace:
            _check_wanted(store, label_shard)
        if rest_id:
            path = layout.errors_path(name, label_shard.shard.input_id, label_shard.fingerprint, rest_id)
            store.publish(rest_scratch, path)
        with failing.passing("shard_committed"):
            published = store.publish(scratch, name, replace=expected is not None, expected=expected)
    return receipt if published else None


def _version(store: Store, name: str) -> str | None:
    entry = store.stat(name)
    return entry.version if entry else None


def _check_wanted(store: Store, label_shard: LabelShard) -> None:
    """Refuse to replace a label shard after another run has begun to relabel the sink with another pipeline.

    Raises:
        RunError: One has: what this process made is no longer wanted.
    """
    shard, fingerprint = label_shard.shard, label_shard.fingerprint
    record = run_record.load(store)
    if record is not None and (record.fingerprint, hash_parts(record.file_parts)) != (
        fingerprint,
        label_shard.file_id or hash_parts(record.file_parts),
    ):
        raise RunError(
            f"{store.url}/{shard.name}: not replaced, for another run has begun to relabel this sink with another "
            f"pipeline (fingerprint {record.fingerprint!r}, this one's is {fingerprint!r})"
        )


def _fill(
    scratch: Path, rest_scratch: Path, tables: Iterator[pa.Table], label_shard: LabelShard, hashes: Hashes
) -> tuple[ShardReceipt, str]:
    """Write the label shard into one scratch file, and into the other the rows that it leaves out, if any.

    Returns the receipt and the id of the other file, empty when there are no such rows. The id is new with every
    write: so a file that no footer names now is named by none later, but for the write that made it. The rows are an
    Arrow stream: Arrow's file format has no place for dictionaries that change on the way.
    """
    tally = Tally(texts=label_shard.texts)
    first = next(tables)
    with ExitStack() as files, ExitStack() as rest_files:
        writer = files.enter_context(
            pq.ParquetWriter(str(scratch), first.schema, compression=label_shard.compression, write_page_checksum=True)
        )
        rest_writer: pa.RecordBatchStreamWriter | None = None
        for table in _grouped(chain([first], tables)):
            tally.add(table)
            is_ok = pc.equal(table.column("status"), pa.scalar("ok"))
            if label_shard.rows == "ok" and not pc.all(is_ok, min_count=0).as_py():
                rest_writer = rest_writer or rest_files.enter_context(
                    pa.ipc.new_stream(str(rest_scratch), first.schema)
                )
                rest_writer.write_table(table.filter(pc.invert(is_ok)))
                table = table.filter(is_ok)
            if table.num_rows:
                writer.write_table(table)
        rest_files.close()
        rest_id = new_id() if rest_writer else ""
        receipt = tally.receipt(label_shard.shard)
        writer.add_key_value_metadata(
            footer.encode(
                receipt,
                fingerprint=label_shard.fingerprint,
                input_id=label_shard.shard.input_id,
                metadata=label_shard.metadata,
                file_id=label_shard.file_id,
                rest_id=rest_id,
                write_id=new_id(),
                recordings=hashes.encode(),
            )
        )
    return receipt, rest_id


def new_id() -> str:
    """Return an id that no other write, and no other attempt, ever has."""
    return uuid.uuid4().hex[:16]


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


def _tables(store: Store, label_shard: LabelShard, hashes: Hashes) -> Generator[pa.Table]:
    """Yield the label shard's rows in their order, at most a row group at a time; an empty table if there are none.

    Raises:
        ChangedRecordingsError: files were replaced, once all pieces were looked at.
    """
    shard, schema = label_shard.shard, None
    changed: list[ChangedRecordingsError] = []
    for piece in shard.pieces or (Piece(0, 0),):
        source = read_source(label_shard, piece)
        schema = schema or _schema(source, label_shard)
        if not piece.num_rows:
            yield schema.empty_table()
            continue
        try:
            yield from _in_order(store, label_shard, piece, source, schema, hashes)
        except ChangedRecordingsError as error:
            changed.append(error)
    if changed:
        raise ChangedRecordingsError(
            str(changed[0]), shard.name, tuple(piece for one in changed for piece in one.pieces)
        )


def read_source(label_shard: LabelShard, piece: Piece) -> pa.Table:
    """Read what a label shard carries over of a piece, and check that it has all its rows."""
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


def _schema(source: pa.Table, label_shard: LabelShard) -> pa.Schema:
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
    store: Store, label_shard: LabelShard, piece: Piece, source: pa.Table, schema: pa.Schema, hashes: Hashes
) -> Iterator[pa.Table]:
    """Yield a piece's source columns and staged results side by side, at most a row group at a time."""
    if differing := _differing_types(source, schema, 0):
        raise ShardError(f"{label_shard.shard.url}: {differing}, as in its first rows; write it with one type")
    columns = schema.names[source.num_columns :]
    first = 0
    try:
        for staged in read_staged(store, label_shard, piece, hashes):
            if differing := _differing_types(staged, schema, source.num_columns):
                raise RunError(
                    f"{store.url}: staged results of {label_shard.shard.name!r}: {differing}; "
                    "this is a bug of raysp: report it"
                )
            beside = source.slice(first, staged.num_rows)
            first += staged.num_rows
            table = pa.Table.from_arrays([*beside.columns, *staged.select(columns).columns], schema=schema)
            num_rows = max(1, table.num_rows * ROW_GROUP_BYTES // max(1, table.nbytes))
            yield from (table.slice(begin, num_rows) for begin in range(0, table.num_rows, num_rows))
    except stage.BrokenStageError:
        stage.discard(store, label_shard.shard.name, piece)
        raise


def read_staged(
    store: Store, label_shard: LabelShard, piece: Piece, hashes: Hashes, *, rows: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Yield a piece's staged results in order, and take over which files they were made of.

    Args:
        store: the sink.
        label_shard: what is made of them.
        piece: to read.
        hashes: filled on the way.
        rows: those of the piece's rows that are staged; None: all.

    Raises:
        ChangedRecordingsError: one of the files was replaced since; the piece is no longer staged.
        StoreError: that cannot be found out.
    """
    shard, changed = label_shard.shard, list[tuple[int, str]]()
    versions = label_shard.versions and recordings.asked_once(label_shard.versions)
    names = None if label_shard.blocks is None else label_shard.blocks.get(piece, ())
    for table in stage.read_rows(
        store,
        shard.name,
        piece,
        shard.input_id,
        label_shard.stage_id,
        label_shard.join,
        rows=rows,
        names=names,
        num_bytes=ROW_GROUP_BYTES,
    ):
        if versions is not None and recordings.VERSION in table.column_names:
            changed += recordings.changed_rows(table, versions)
            hashes.add(table)
        if not changed:
            yield table
    if changed:
        stage.discard(store, shard.name, piece)
        raise ChangedRecordingsError(
            f"{store.url}/{shard.name}: recordings were replaced after they were labelled: "
            f"{recordings.shown(changed)}; rows {piece.first} to {piece.end} are labelled again",
            shard.name,
            (piece,),
        )


def _differing_types(table: pa.Table, schema: pa.Schema, first_column: int) -> str:
    """Name the first column whose type is not that of the schema, which has the table's from `first_column` on."""
    for expected in list(schema)[first_column : first_column + table.num_columns]:
        found = table.schema.field(expected.name).type if expected.name in table.schema.names else None
        if found != expected.type:
            return f"column {expected.name!r} is {found or 'missing'}, expected {expected.type}"
    return ""
