"""Commit: staged results become a label shard in one atomic step; and the work left on a sink.

The label shard itself is the commit. The removal of the stage and the receipt that follow only save work, so a process
may be killed between any two steps, and two processes may commit the same shard concurrently. An existing label shard
stays unchanged, unless a retry replaces it, also whole and in one step. A commit removes only staged blocks of its
shard. Files that another label shard may need are removed by `raysp gc` alone.
"""

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp.columns import OK, RESULT_COLUMNS
from raysp.corpus.parquet import seal
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ChangedError, PlanError, RunError, ShardError
from raysp.sink import fault_injection, footer, layout, receipts, stage, table_files
from raysp.sink.footer import Hashes
from raysp.sink.label_rows import is_named, load_forgotten, without_labels
from raysp.sink.receipts import Rules, ShardFailure, ShardReceipt, Tally, TextColumns
from raysp.storage.opened import Entry, content_of
from raysp.storage.store import Store, explained
from raysp.words import count

RESULT_SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in RESULT_COLUMNS.items()])
"""First columns of all staged results; the outputs follow."""

# Arrow memory that a commit holds at a time, besides the source columns of a piece
ROW_GROUP_BYTES = 64 * 1024 * 1024
ROW_GROUP_ROWS = 128 * 1024
FOOTERS_AT_ONCE = 32
FOOTERS_A_WINDOW = 1024
"""Items of `for_each` in memory: a pool keeps a kilobyte for each."""

PEAK = 6
"""Bound of a commit's memory, as a multiple of the bytes sorted or written at once (docs/evidence/performance.md)."""

Compression = Literal["zstd", "snappy", "gzip", "lz4", "none"]
Rows = Literal["all", "ok"]
S = TypeVar("S")
T = TypeVar("T")
SourceColumns = Callable[[Piece], pa.Table]
Finish = Callable[[pa.Table, Piece], pa.Table]


def _no_source(piece: Piece) -> pa.Table:
    raise NotImplementedError


@dataclass(frozen=True)
class LabelShard:
    """A label shard to write, with the columns of `source_columns`, `RESULT_SCHEMA` and `output_schema`."""

    shard: Shard
    """The recorded shard."""
    fingerprint: str
    """Fingerprint of the pipeline."""
    source_columns: SourceColumns = _no_source
    """Returns id and kept columns of a piece's rows in their order. Called with an empty piece if the shard has no
    rows, and never if the rows come from label shards."""
    output_schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Schema of the staged columns after `RESULT_SCHEMA`."""
    rows: Rows = "all"
    """"ok" leaves out all other rows and stores them in `.raysp/errors/`."""
    compression: Compression = "zstd"
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Entries added to the file's metadata."""
    file_id: str = ""
    """Hash of settings that change the file but no label."""
    texts: TextColumns | None = None
    """Columns whose word errors are counted; None: no comparison."""
    rules: Rules = field(default_factory=dict)
    """Conditions whose filtered rows are counted."""
    stage_id: str = ""
    """Id in the names of its staged results; empty: the fingerprint."""
    finish: Finish | None = None
    """Applies the steps after the model to staged rows; None: there are none."""
    staged: Sequence[stage.Staged] = ()
    """Results that are staged for it."""


def memory(num_rows: int, staged_bytes: int) -> int:
    """Return the approximate peak memory in bytes of a commit of `num_rows` rows. A row is never split."""
    return PEAK * min(staged_bytes, max(ROW_GROUP_BYTES, staged_bytes // max(1, num_rows)))


def committed(
    store: Store, shards: Iterable[Shard], fingerprint: str, *, file_id: str = ""
) -> tuple[frozenset[str], dict[str, str]]:
    """Return the committed shards, and those with a file in their place that is not their label shard, with the reason.

    The arguments are the same as for `outcomes`.
    """
    done: set[str] = set()
    foreign: dict[str, str] = {}
    for name, outcome in outcomes(store, shards, fingerprint, file_id=file_id):
        if isinstance(outcome, ShardReceipt):
            done.add(name)
        elif isinstance(outcome, ChangedError):
            foreign[name] = str(outcome)
    return frozenset(done), foreign


def outcomes(
    store: Store, shards: Iterable[Shard], fingerprint: str, *, file_id: str = ""
) -> Iterator[tuple[str, ShardReceipt | ShardFailure | ChangedError]]:
    """Yield the names of shards with the receipt of their label shard, or why there is none.

    A listing of the sink has the versions of the label shards. A logged receipt of such a version is yielded as it is.
    The footer is read of each other label shard: its receipt was lost, or another process wrote it. A file that was not
    made from this input by this pipeline is a `ChangedError`. Logged failures are yielded too, also of shards that were
    committed since.

    Args:
        store: the sink.
        shards: the recorded shards.
        fingerprint: fingerprint of the pipeline.
        file_id: hash of settings that change the file but no label; empty: not compared.
    """
    versions: dict[str, str | None] = {}
    batches: list[str] = []
    for entry in store.list():
        if entry.path.startswith(layout.LOG):
            batches.append(entry.path)
        elif not entry.path.startswith(layout.HOME):
            versions[entry.path] = _version(entry)
    rest = {shard.name: shard for shard in shards if shard.name in versions}
    for _, receipt in receipts.load(store, ("shard", "failure"), batches):
        if isinstance(receipt, ShardFailure):
            yield receipt.shard, receipt
        elif isinstance(receipt, ShardReceipt) and (shard := rest.get(receipt.shard)):
            is_listed = receipt.version == versions[shard.name]
            if is_listed and not footer.differences(receipt, shard, fingerprint, file_id):
                del rest[shard.name]
                yield shard.name, receipt

    def read(shard: Shard) -> ShardReceipt | ChangedError:
        try:
            return footer.read_expected(store, shard, fingerprint, file_id).receipt
        except ChangedError as error:
            return error

    yield from zip(rest, for_each(read, [*rest.values()]), strict=True)


def for_each(work: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
    """Yield the results of `work`, which mostly waits for the store, in order; many items are processed in parallel."""
    if len(items) < FOOTERS_AT_ONCE:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        for start in range(0, len(items), FOOTERS_A_WINDOW):
            yield from pool.map(work, items[start : start + FOOTERS_A_WINDOW])


def _version(entry: Entry) -> str | None:
    """Return the version of a label shard; None if the store has none."""
    return content_of(entry) if entry.version else None


def write_staged(store: Store, label_shard: LabelShard, *, expected: str | None) -> ShardReceipt | None:
    """Write a label shard from its staged results, and publish it, as `write`."""
    hashes = Hashes.zeros(label_shard.shard.num_rows)
    with closing(tables_of(store, label_shard, hashes)) as tables:
        return write(store, label_shard, tables, hashes, expected=expected)


def write(
    store: Store,
    label_shard: LabelShard,
    tables: Iterator[pa.Table],
    hashes: Hashes,
    *,
    expected: str | None,
    is_needed: Callable[[], bool] = lambda: True,
) -> ShardReceipt | None:
    """Write a label shard from its rows in order and publish it.

    Returns None if another process published one first, or if it is not needed.

    Args:
        store: the sink.
        label_shard: the label shard to write.
        tables: its rows.
        hashes: filled while the tables are consumed.
        expected: version of the label shard to replace, read before its rows; None: create it, only if absent.
        is_needed: returns whether to publish it; called when all rows were read.
    """
    name = label_shard.shard.name
    if forgotten := load_forgotten(store):
        tables = _withdrawn(tables, hashes, forgotten)
    with store.scratch() as scratch, store.scratch() as rest_scratch:
        with explained("write", f"{store.url}/{name}"):
            receipt, rest_id = _fill(scratch, rest_scratch, tables, label_shard, hashes)
        if not is_needed():
            return None
        if rest_id:  # before the label shard, which never names a file that is not there
            path = layout.errors_path(name, label_shard.shard.input_id, label_shard.fingerprint, rest_id)
            store.publish(rest_scratch, path)
        with fault_injection.passing("shard_committed"):
            entry = store.publish(scratch, name, replace=expected is not None, expected=expected)
    # The version of this write: another process may have replaced the file since.
    return replace(receipt, version=_version(entry) or "") if entry else None


def _withdrawn(tables: Iterator[pa.Table], hashes: Hashes, ids: frozenset[str]) -> Iterator[pa.Table]:
    """Yield rows without the labels of withdrawn recordings, and without the versions of their files."""
    for table in tables:
        is_withdrawn = is_named(table, ids)
        hashes.by_row[table.column("row").to_numpy()[is_withdrawn]] = 0
        yield without_labels(table, is_withdrawn) if is_withdrawn.any() else table


def _fill(
    scratch: Path, rest_scratch: Path, tables: Iterator[pa.Table], label_shard: LabelShard, hashes: Hashes
) -> tuple[ShardReceipt, str]:
    """Write the label shard to one scratch file, and the rows that it leaves out to the other.

    Returns the receipt and the id of the other file, which is new for every write; empty without such rows.
    """
    tally = Tally(texts=label_shard.texts, rules=label_shard.rules)
    first = next(tables)
    with ExitStack() as files, ExitStack() as rest_files:
        writer = files.enter_context(
            # `read_labels` checks the checksums, so a damaged page is an error and never a label.
            pq.ParquetWriter(str(scratch), first.schema, compression=label_shard.compression, write_page_checksum=True)
        )
        rest_writer: table_files.Writer | None = None
        for table in grouped(chain([first], tables)):
            tally.add(table)
            is_ok = pc.equal(table.column("status"), pa.scalar(OK))
            # min_count=0: `all` of an empty table is null otherwise, and an empty file of left-out rows would be
            # written.
            if label_shard.rows == "ok" and not pc.all(is_ok, min_count=0).as_py():
                rest_writer = rest_writer or rest_files.enter_context(
                    table_files.Writer(rest_files.enter_context(rest_scratch.open("wb")))
                )
                rest_writer.write(table.filter(pc.invert(is_ok)))
                table = table.filter(is_ok)
            if table.num_rows:
                writer.write_table(table)
        rest_files.close()
        rest_id = footer.new_id() if rest_writer else ""
        receipt = replace(
            tally.receipt(label_shard.shard),
            fingerprint=label_shard.fingerprint,
            input_id=label_shard.shard.input_id,
            file_id=label_shard.file_id,
        )
        values = footer.encode(receipt, label_shard.metadata, rest_id=rest_id, recordings=hashes.encode())
        writer.add_key_value_metadata(values)
    seal(scratch)
    return receipt, rest_id


def grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield neighbouring tables joined into row groups of at least ROW_GROUP_BYTES or ROW_GROUP_ROWS."""
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


def tables_of(store: Store, label_shard: LabelShard, hashes: Hashes) -> Generator[pa.Table]:
    """Yield the label shard's rows in order, at most a row group at a time; one empty table if it has no rows."""
    shard, schema = label_shard.shard, None
    for piece in shard.pieces or (Piece(0, 0),):
        source = read_source(label_shard, piece)
        schema = schema or _schema(source, label_shard)
        if not piece.num_rows:
            yield schema.empty_table()
            continue
        if differing := table_files.differing(source.schema, [*schema][: source.num_columns]):
            raise ShardError(f"{shard.url}: {differing} as in its first rows; write the shard again")
        for rows in read_staged(store, label_shard, piece, source, hashes, lambda tile: range(tile.first, tile.end)):
            table = pa.Table.from_arrays(rows.columns, schema=schema)
            num_rows = max(1, table.num_rows * ROW_GROUP_BYTES // max(1, table.nbytes))
            yield from (table.slice(begin, num_rows) for begin in range(0, table.num_rows, num_rows))


def read_source(label_shard: LabelShard, piece: Piece) -> pa.Table:
    """Read the source columns of a piece, and check their number of rows."""
    shard = label_shard.shard
    with explained("read", shard.url):
        source = label_shard.source_columns(piece)
    if source.num_rows != piece.num_rows:
        raise ShardError(
            f"{shard.url}: read {count(source.num_rows, 'row')} from {piece.first} to {piece.end}, expected "
            f"{piece.num_rows}; the shard may have changed after it was planned"
        )
    return source


def _schema(source: pa.Table, label_shard: LabelShard) -> pa.Schema:
    """Return the columns of the label shard, without metadata of the source's fields, which describes another file."""
    of_source = (field.remove_metadata() for field in source.schema)
    schema = pa.schema([*of_source, *RESULT_SCHEMA, *label_shard.output_schema])
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise PlanError(
            f"{label_shard.shard.url}: the label shard would have several columns named {twice}; "
            "change sink.keep or the names of the outputs"
        )
    return schema


def read_staged(
    store: Store,
    label_shard: LabelShard,
    piece: Piece,
    source: pa.Table,
    hashes: Hashes,
    rows_of: Callable[[Piece], Sequence[int]],
) -> Iterator[pa.Table]:
    """Yield a piece's source columns and staged results side by side, in order.

    Args:
        store: the sink.
        label_shard: the label shard to make.
        piece: the piece to read.
        source: source columns of its staged rows.
        hashes: filled with the versions of the files that the rows were made from.
        rows_of: returns the numbers of the staged rows among some rows.

    Raises:
        RunError: results are missing, or cannot be read.
    """
    tiles = stage.tiles(piece, label_shard.staged)
    if missing := stage.unstaged([piece], label_shard.staged):
        raise RunError(
            f"{store.url}/{label_shard.shard.name}: results of rows {missing[0].first} to {missing[0].end} are "
            "missing; run again"
        )
    schema, first = pa.schema([*RESULT_SCHEMA, *label_shard.output_schema]), 0
    for tile in tiles:
        for table in stage.read(store, tile, rows_of(tile.rows), schema):
            hashes.add(table)
            results = label_shard.finish(table, piece) if label_shard.finish else table
            columns = [*source.slice(first, len(results)).columns, *results.select(schema.names).columns]
            first += len(results)
            yield pa.Table.from_arrays(columns, names=[*source.column_names, *schema.names])


@dataclass(frozen=True)
class Retry:
    """A label shard to make again, or some of its rows."""

    stage_id: str
    """Id of this attempt, which replaces the fingerprint in the names of its staged results."""
    rows: tuple[int, ...] | None
    """Row numbers, sorted; None: the whole shard."""
    write_id: str = ""
    """Write id of the label shard to replace; empty: there is none."""

    def of(self, piece: Piece) -> Sequence[int]:
        """Return the rows of a piece."""
        if self.rows is None:
            return range(piece.first, piece.end)
        return self.rows[bisect_left(self.rows, piece.first) : bisect_left(self.rows, piece.end)]


@dataclass(frozen=True)
class Todo:
    """Rows of one shard that are not staged yet; without any, the shard only waits to be committed."""

    shard: Shard
    pieces: tuple[Piece, ...]
    """Pieces of the shard that are not staged, and parts of pieces of which other parts are."""
    retry: Retry | None = None
    staged: tuple[stage.Staged, ...] = field(default=(), compare=False)
    """Results of all other rows."""

    @property
    def num_rows(self) -> int:
        """Number of rows to label."""
        return sum(len(self.retry.of(piece)) if self.retry else piece.num_rows for piece in self.pieces)

    @property
    def keeps_rows(self) -> bool:
        """Whether the other rows of the label shard stay as they are."""
        return self.retry is not None and self.retry.rows is not None

    def without_failed(self, most: float) -> "Todo":
        """Return the work with the rows of staged results of which more than a share of `most` failed."""
        failed = {staged for staged in self.staged if staged.name.errors > most * staged.rows.num_rows}
        kept = tuple(staged for staged in self.staged if staged not in failed)
        return replace(self, pieces=tuple(sorted((*self.pieces, *(staged.rows for staged in failed)))), staged=kept)


def compare(
    store: Store, shards: Sequence[Shard], fingerprint: str, *, file_id: str = "", stage_id: str = ""
) -> tuple[frozenset[str], tuple[Todo, ...]]:
    """Return the names of committed shards, and the work left on the others; arguments as of `commit`.

    Raises:
        ChangedError: another file is in the place of a label shard.
    """
    done, foreign = committed(store, shards, fingerprint, file_id=file_id)
    if reasons := [*foreign.values()]:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ChangedError(reasons[0] + more, tuple(reasons))
    open_shards = [shard for shard in shards if shard.name not in done]
    staged = stage.listed(store, open_shards, stage_id or fingerprint)
    todo: list[Todo] = []
    for shard in open_shards:
        tiles = [tile for piece in shard.pieces for tile in stage.tiles(piece, staged.get(shard.name, ()))]
        todo.append(Todo(shard, tuple(stage.unstaged(shard.pieces, tiles)), staged=tuple(tiles)))
    return done, tuple(todo)
