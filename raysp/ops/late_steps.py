"""Steps on decoded rows, which add columns or filter by added columns; joining of windows; steps on labelled rows."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import chain, pairwise
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import DIGEST, INNER_COLUMNS, INNER_PREFIX, OUTCOME, RESULT_COLUMNS, SECONDS, STATUS
from raysp.errors import RunError
from raysp.ops.pasts import PAST
from raysp.ops.rows import (
    ERROR,
    OK,
    PLACE,
    ROW_SCHEMA,
    WAVE,
    RowStatus,
    chosen,
    in_single_precision,
    on_grid,
    row_statuses,
    statuses_table,
    waves_of,
    with_columns,
    with_labels,
    with_waves,
)
from raysp.ops.step_ops import (
    NO_COLUMNS,
    ColumnOp,
    FunctionError,
    RowOp,
    added_columns,
    apply,
    calling,
    failure_of,
    name_of,
    samples_column,
)
from raysp.text.times import timed_columns, within_recordings
from raysp.words import count

MOST_EXAMPLES = 3
"""Error rows of a piece or commit that messages name."""
CARRIED = f"{INNER_PREFIX}source:"
"""Prefix of carried source columns, whose names other columns of a block may have."""
CARRIED_SAMPLES = f"{INNER_PREFIX}samples"
"""Column of the samples of rows of several windows."""


@dataclass(frozen=True)
class Carrying:
    """Columns carried by blocks: for steps in the last window of each ok row, for outputs in every window."""

    columns: Sequence[str] | None = ()
    """Source columns of steps on decoded rows; None: all without the audio."""
    samples: bool = False
    """Whether steps read samples."""
    sample_rate: int = 0
    outputs: Sequence[str] = ()
    """Source columns that outputs read, and `DIGEST` if one does."""

    def __call__(
        self,
        block: pa.Table,
        statuses: Sequence[RowStatus],
        source: pa.Table,
        places: Sequence[int],
        chunks: Sequence[Sequence[np.ndarray]],
    ) -> pa.Table:
        """Append the carried columns to a block.

        Args:
            block: a block of windows.
            statuses: their outcomes.
            source: source columns of the rows of the piece.
            places: for each window the index of its row in `source`.
            chunks: for the last of several windows all samples of the row; empty for other windows.
        """
        is_end = _is_end(statuses)
        numbers = np.array(places, np.int64)
        of_windows = pa.array(numbers, pa.int64())
        of_ends = pa.array(numbers, pa.int64(), mask=~np.array(is_end, bool))
        for name, column in zip(source.column_names, source.columns, strict=True):
            if name in self.outputs:
                block = block.append_column(f"{CARRIED}{name}", column.take(of_windows))
            elif self.columns is None or name in self.columns:
                block = block.append_column(f"{CARRIED}{name}", column.take(of_ends))
        if DIGEST in self.outputs:
            block = block.append_column(f"{CARRIED}{DIGEST}", pa.array([s.digest for s in statuses], pa.string()))
        if self.samples:
            whole = [parts if parts and end else None for parts, end in zip(chunks, is_end, strict=True)]
            block = block.append_column(CARRIED_SAMPLES, samples_column(whole, self.sample_rate))
        return block


NOTHING = Carrying()


@dataclass(frozen=True)
class LateFilter:
    """A step's op that filters decoded rows by columns that earlier steps added."""

    op: RowOp
    reads: Sequence[str] | None
    """Columns that it reads; None: all."""


@dataclass(eq=False)
class LateSteps:
    """Op that applies steps to a block; values of a row do not depend on its block.

    Attributes:
        ops: ops that add columns, and filters by added ones, in order.
        audio: column of the recordings, for ops that read samples.
        sample_rate: sample rate of the decoded recordings.
        outputs: columns that stay in the block for outputs, of the source or added.
    """

    ops: Sequence[ColumnOp | LateFilter]
    _: KW_ONLY
    audio: str
    sample_rate: int
    outputs: Sequence[str] = ()

    def __call__(self, block: pa.Table) -> pa.Table:
        """Return a block with the added columns, null unless the row ends with the window and is ok.

        Args:
            block: a block of `Decoding`, with the columns that the steps read.
        """
        rows = _Rows(block, self.audio, self.sample_rate)
        for op in self.ops:
            if isinstance(op, LateFilter):
                rows.filter(op)
            else:
                rows.add(op)
        return rows.table([f"{CARRIED}{name}" for name in self.outputs])


@dataclass(eq=False)
class RowFilters:
    """Op that applies the steps after the model to labelled rows.

    A filter sees ok rows. A row that it rejects becomes `skipped: filtered`, and a row for which it fails
    `error: step_failed`, both without labels.

    Attributes:
        filters: the filters, in order.
        columns: columns that steps add, null in rejected rows. Functions receive them together with source columns.
        num_rows: number of rows of the shard; None: any number of rows may fail.
        max_error_rate: share of the rows of the shard that may fail, and at least one may.
    """

    filters: Sequence[LateFilter]
    columns: Sequence[str]
    _: KW_ONLY
    num_rows: int | None = None
    max_error_rate: float = 1.0
    num_filtered: int = 0
    """Number of rejected rows."""
    num_failed: int = 0
    """Number of rows for which a filter failed."""
    examples: tuple[tuple[int, str, str], ...] = ()
    """Row, `error_type` and message of a few failed rows."""

    @property
    def reads_source(self) -> bool:
        """Whether a filter may read any column of the source."""
        return any(late.reads is None for late in self.filters)

    def __call__(self, rows: pa.Table, source: pa.Table | None = None) -> pa.Table:
        """Return rows with the outcomes of the filters.

        Args:
            rows: rows of label shards.
            source: columns of the source of these rows, without the audio; None: no filter reads them.

        Raises:
            RunError: filters failed for more rows than may fail, or one returned another number of values.
        """
        for late in self.filters:
            rows = self._filtered(late, rows, source)
        return rows

    def _filtered(self, late: LateFilter, rows: pa.Table, source: pa.Table | None) -> pa.Table:
        places = pc.indices_nonzero(pc.equal(rows.column(STATUS), pa.scalar(OK)))
        of_ok = zip(*(rows.column(name).take(places).to_pylist() for name in ("row", SECONDS)), strict=True)
        outcomes = [RowStatus(row, seconds=seconds) for row, seconds in of_ok]
        apply(late.op, outcomes, self._read(late, rows, source).take(places))
        ends = zip(places.to_numpy().tolist(), outcomes, strict=True)
        left_out = {place: outcome for place, outcome in ends if outcome.status != OK}
        failed = [outcome for outcome in left_out.values() if outcome.status == ERROR]
        self.num_failed += len(failed)
        self.num_filtered += len(left_out) - len(failed)
        if failed:
            named = ((outcome.row, "step_failed", str(outcome.error_message)) for outcome in failed)
            self.examples = (*self.examples, *named)[:MOST_EXAMPLES]
            self._check_failed(self.examples[-1][2])
        return _without_labels(rows, left_out, [name for name in self.columns if name in rows.column_names])

    def _check_failed(self, example: str) -> None:
        """Raise RunError if too many rows failed."""
        if self.num_rows is None:
            return
        most_failed = max(1, math.floor(self.max_error_rate * self.num_rows))
        if self.num_failed > most_failed:
            raise RunError(
                f"steps after the model failed for {self.num_failed:,} of {count(self.num_rows, 'row')}, more than "
                f"the {most_failed:,} of max_error_rate={self.max_error_rate}; correct the function. "
                f"For example, {example}"
            )

    def _read(self, late: LateFilter, rows: pa.Table, source: pa.Table | None) -> pa.Table:
        """Return the columns for a filter; columns of steps replace source columns of the same name."""
        if late.reads is not None or source is None:
            return rows
        of_source = dict(zip(source.column_names, source.columns, strict=True))
        return pa.table(
            {**of_source, **{name: rows.column(name) for name in self.columns if name in rows.column_names}}
        )


def labelled(
    table: pa.Table,
    columns: "Iterable[pa.Field[Any]]",
    labels: Sequence[tuple[object, ...] | None],
    *,
    timed: Sequence[str],
    completing: Sequence[ColumnOp],
) -> pa.Table:
    """Return windows or rows with the columns of outputs.

    Args:
        table: `ROW_SCHEMA` and the added columns.
        columns: columns of outputs.
        labels: for each row a value of each of these columns; None: all are null.
        timed: columns with times, which are clipped to the recording.
        completing: ops that replace columns of the same names where these are set, such as words by words with
            speakers, in whole rows.
    """
    table = with_labels(table, columns, labels)
    if timed:
        table = within_recordings(table, timed)
    for op in completing:
        table = _completed(op, table)
    return table


def _completed(op: ColumnOp, table: pa.Table) -> pa.Table:
    statuses = row_statuses(table)
    is_set = table.column(op.schema.names[0]).is_valid().to_pylist()
    places = [place for place, row_status in enumerate(statuses) if is_set[place] and not row_status.is_part]
    columns, failed = _added(op, table.take(pa.array(places, pa.int64())).select(list(op.reads)), statuses, places)
    for field, column in zip(op.schema, columns.columns, strict=True):
        table = table.set_column(table.schema.get_field_index(field.name), field, column)
    outcomes = {place: statuses[place] for place in failed}
    return _without_labels(table, outcomes, [name for name in table.column_names if name not in ROW_SCHEMA.names])


def _added(
    op: ColumnOp, rows: pa.Table, statuses: Sequence[RowStatus], places: Sequence[int]
) -> tuple[pa.Table, list[int]]:
    """Return the columns of an op for rows at some places, null at others, and the places of rows for which it failed.

    Args:
        op: the op.
        rows: the rows at `places`, with the columns that the op reads.
        statuses: outcomes of all rows, in which failures are recorded.
        places: places of `rows`.
    """
    columns, failures = added_columns(op, rows)
    failed: list[int] = []
    for place, failure in zip(places, failures, strict=True):
        if failure is not None:
            statuses[place].fail("step_failed", failure)
            failed.append(place)
    numbers = {place: number for number, place in enumerate(places)}
    return chosen(columns, op.schema, [numbers.get(place) for place in range(len(statuses))]), failed


def _without_labels(rows: pa.Table, outcomes: Mapping[int, RowStatus], labels: Sequence[str]) -> pa.Table:
    """Return rows with new outcomes at some places, where the columns `labels` are null."""
    if not outcomes:
        return rows
    kept = pa.array([None if place in outcomes else place for place in range(len(rows))], pa.int64())
    changed = {name: rows.column(name).take(kept) for name in labels}
    for name in OUTCOME:
        values = rows.column(name).to_pylist()
        for place, outcome in outcomes.items():
            values[place] = getattr(outcome, name)
        changed[name] = pa.chunked_array([values], rows.schema.field(name).type)
    columns = [changed.get(name, column) for name, column in zip(rows.column_names, rows.columns, strict=True)]
    return pa.table(columns, schema=rows.schema)


class _Rows:
    """The rows that end in a block, with their outcomes, samples and columns."""

    def __init__(self, block: pa.Table, audio: str, sample_rate: int) -> None:
        self.block = block
        self.audio = audio
        self.sample_rate = sample_rate
        self.statuses = row_statuses(block)
        self.waves = waves_of(block)
        self.has_changed = False
        self.carried = [name for name in block.column_names if name.startswith(INNER_PREFIX)]
        inner = {*RESULT_COLUMNS, *INNER_COLUMNS, *self.carried}
        self.added = {name: block.column(name) for name in block.column_names if name not in inner}

    def add(self, op: ColumnOp) -> None:
        places = self._ends()
        inputs = self._columns(places, op.reads)
        if self.audio in op.reads:
            inputs[self.audio] = samples_column([[self._samples(place)] for place in places], self.sample_rate)
        columns, failed = _added(op, pa.table({name: inputs[name] for name in op.reads}), self.statuses, places)
        for place in failed:
            self._drop(place)
        self.added |= dict(zip(columns.column_names, columns.columns, strict=True))

    def filter(self, late: LateFilter) -> None:
        places = self._ends()
        apply(late.op, [self.statuses[place] for place in places], pa.table(self._columns(places, late.reads)))
        for place in places:
            if self.statuses[place].status != OK:
                self._drop(place)

    def table(self, carried: Sequence[str]) -> pa.Table:
        """Return the block with the results, and these carried columns."""
        metadata = self.block.schema.metadata
        if self.has_changed:
            block = with_waves(statuses_table(self.statuses), self.waves)
        else:
            block = self.block.select([*ROW_SCHEMA.names, WAVE])
        for name, column in self.added.items():
            block = block.append_column(name, column)
        for name in self.carried:
            if name in carried or name in (PLACE, PAST):
                block = block.append_column(name, self.block.column(name))
        for name, column in self.added.items():
            if f"{CARRIED}{name}" in carried:
                block = block.append_column(f"{CARRIED}{name}", column)
        return block.replace_schema_metadata(metadata)

    def _drop(self, place: int) -> None:
        self.waves[place] = None
        self.has_changed = True

    def _ends(self) -> list[int]:
        """Return the places of the last windows of ok rows."""
        return [place for place, is_end in enumerate(_is_end(self.statuses)) if is_end]

    def _columns(self, places: Sequence[int], names: Sequence[str] | None) -> "dict[str, pa.ChunkedArray[Any]]":
        """Return columns of some rows: of the source, or added; all if `names` is None, without the audio column."""
        numbers = pa.array(places, pa.int64())
        source = {name.removeprefix(CARRIED): name for name in self.carried if name.startswith(CARRIED)}
        named = None if names is None else {*names, *(name.partition(".")[0] for name in names)}  # fields of structs
        return {
            name: (self.added[name] if name in self.added else self.block.column(source[name])).take(numbers)
            for name in dict.fromkeys([*source, *self.added])
            if named is None or name in named
        }

    def _samples(self, place: int) -> np.ndarray:
        """Return all samples of the row that ends with a window."""
        if CARRIED_SAMPLES in self.carried:
            whole = cast("Any", self.block.column(CARRIED_SAMPLES)[place])
            if whole.is_valid:
                return np.asarray(whole["samples"].values)
        wave = self.waves[place]
        return wave if wave is not None else np.empty(0, np.float32)


def carried_values(windows: pa.Table, name: str) -> list[object]:
    """Return a source column that outputs read, one value per window.

    Args:
        windows: a block; or the windows of a longer row, of which only the last has the value.
        name: name of the column in the source.
    """
    return windows.column(f"{CARRIED}{name}").to_pylist()


def for_joining(block: pa.Table, statuses: Sequence[RowStatus]) -> pa.Table:
    """Return the staged form of the carried source columns of a block: null except in last windows of longer rows."""
    source = block.select([name for name in block.column_names if name.startswith(CARRIED)])
    ends = [
        place if is_end and statuses[place].windows != 1 else None for place, is_end in enumerate(_is_end(statuses))
    ]
    return chosen(source, source.schema, ends)


def _is_end(statuses: Sequence[RowStatus]) -> list[bool]:
    """Return for each window whether it is the last of an ok row."""
    return [bool(row_status.windows) and row_status.status == OK for row_status in statuses]


RESULT = f"{INNER_PREFIX}result:"
"""Prefix of the texts of a row's earlier outputs, in the last of its windows."""


class JoinOp(Protocol):
    """Op that computes a row's columns from the staged columns of its windows."""

    schema: pa.Schema

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema`, from the staged columns of the windows in order.

        Source columns that the output reads are in the table too, see `raysp.ops.late_steps.carried_values`,
        and texts of earlier outputs of the step, in columns named `RESULT` and their name.
        """
        ...


@dataclass(eq=False)
class Joining:
    """Op that joins windows to rows.

    A row is ok if all its windows are. Otherwise it has the outcome of its last window, the outcome of decoding the
    whole row, or, if that is ok, of its first window that is not. Such a row has no labels, unless it keeps the samples
    before the damage of its recording: then its last window is an error with staged columns.
    """

    outputs: Sequence[JoinOp]
    sample_rate: int
    added: pa.Schema = NO_COLUMNS
    completing: Sequence[ColumnOp] = ()

    def __post_init__(self) -> None:
        self.timed = timed_of(self.outputs)

    def __call__(self, windows: pa.Table) -> pa.Table:
        """Return one row for all windows of a row.

        Args:
            windows: `ROW_SCHEMA`, added and staged columns; sorted by row and window, each row complete.
        """
        numbers = windows.column("row").to_numpy()
        edges = [*np.flatnonzero(np.diff(numbers, prepend=-1)).tolist(), len(numbers)]
        statuses: list[RowStatus] = []
        labels: list[tuple[object, ...] | None] = []
        ends: list[int | None] = []
        for first, end in pairwise(edges):
            parts = windows.slice(first, end - first)
            row_status = row_outcome(row_statuses(parts), self.sample_rate)
            statuses.append(row_status)
            by_output = joined(self.outputs_of(parts), parts, row_status) if self._is_labelled(parts) else None
            labels.append(None if by_output is None else (*chain.from_iterable(by_output),))
            ends.append(end - 1 if row_status.status == OK else None)
        table = with_columns(statuses_table(statuses), chosen(windows, self.added, ends))
        columns = (column for output in self.outputs for column in output.schema)
        return labelled(table, columns, labels, timed=self.timed, completing=self.completing)

    def outputs_of(self, windows: pa.Table) -> Sequence[JoinOp]:
        """Return the ops of the row of some windows."""
        return self.outputs

    def _is_labelled(self, windows: pa.Table) -> bool:
        *before, last = windows.column(STATUS).to_pylist()
        if last == ERROR:
            own = {*ROW_SCHEMA.names, *self.added.names}
            staged = [name for name in windows.column_names if name not in own and not name.startswith(INNER_PREFIX)]
            last = OK if any(windows.column(name)[-1].is_valid for name in staged) else ERROR
        return all(status == OK for status in (*before, last))


def is_ours(output: object) -> bool:
    """Return whether an output belongs to raysp, not to a user."""
    return type(output).__module__.startswith("raysp.")


def check_columns(output: object, fields: "Sequence[pa.Field[Any]]", made: object, num_rows: int) -> None:
    """Raise FunctionError unless a user's output returned the columns `fields` with one value per row."""
    name = name_of(output)
    if not isinstance(made, list | tuple):
        raise FunctionError(f"{name} returned a {type(made).__name__}; expected a sequence of columns")
    if len(made) != len(fields):
        names = ", ".join(field.name for field in fields)
        raise FunctionError(f"{name} returned {count(len(made), 'column')}; expected {len(fields)}: {names}")
    for field, values in zip(fields, made, strict=True):
        if not isinstance(values, Collection):
            raise FunctionError(f"{name} returned a {type(values).__name__} for {field.name}; expected a sequence")
        if len(values) != num_rows:
            raise FunctionError(f"{name} returned {count(len(values), 'value')} for {field.name}; expected {num_rows}")
        try:
            pa.array([*values], in_single_precision(field.type)).cast(field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise FunctionError(
                f"{name} returned values for {field.name} that are not {field.type}: {error}"
            ) from error


def row_of(output: JoinOp, make: Callable[[], object]) -> tuple[object, ...]:
    """Return the values of `schema` that an output computes for one row.

    Raises:
        FunctionError: a user's output fails, or returns other values.
    """
    with calling(output):
        made = make()
    if not is_ours(output):
        columns = [[value] for value in made] if isinstance(made, list | tuple) else made
        check_columns(output, [*output.schema], columns, 1)
    return cast("tuple[object, ...]", made)


def timed_of(outputs: Sequence[JoinOp]) -> list[str]:
    """Return the names of the columns with times of raysp's own outputs."""
    return [name for output in outputs if is_ours(output) for name in timed_columns(output.schema)]


def row_outcome(windows: Sequence[RowStatus], sample_rate: int) -> RowStatus:
    """Return the outcome of a row: of its last window, or, if that is ok, of its first window that is not."""
    row_status = next((window for window in (windows[-1], *windows) if window.status != OK), windows[-1])
    seconds = [window.seconds for window in windows if window.seconds is not None]
    # Rounded, so that the sum equals the duration of a single window to the last bit.
    row_status.seconds = on_grid(sum(seconds), sample_rate) if len(seconds) == len(windows) else None
    row_status.window, row_status.windows = 0, 1
    return row_status


def joined(outputs: Sequence[JoinOp], windows: pa.Table, row_status: RowStatus) -> list[tuple[object, ...]] | None:
    """Return the columns of each output of one row; later outputs read the texts of earlier ones.

    If a user's output raises an error, the row fails and the result is None.
    """
    by_output = []
    for output in outputs:
        try:
            by_output.append(row_of(output, partial(output.join, windows)))
        except FunctionError as error:
            if row_status.status == OK:  # a damaged row keeps its error
                row_status.fail("step_failed", failure_of(output, error))
            return None
        for field, value in zip(output.schema, by_output[-1], strict=True):
            if pa.types.is_string(field.type):
                texts = [*(None for _ in range(windows.num_rows - 1)), value]
                windows = windows.append_column(f"{RESULT}{field.name}", pa.array(texts, field.type))
    return by_output
