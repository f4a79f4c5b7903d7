"""Ops of steps that add columns or filter rows, their application to rows, and rows that fail by their values."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp import tracebacks
from raysp.columns import STATUS
from raysp.corpus.shards import FAULT
from raysp.devices import DeviceLostError
from raysp.errors import RayspError, RunError
from raysp.ops.rows import OK, RowStatus, plain, sample_lists
from raysp.text.error_rates import readable
from raysp.words import count

logger = logging.getLogger(__name__)


NO_COLUMNS = pa.schema([])


class ColumnOp(Protocol):
    """Op of a step that adds columns.

    A value must depend on its own row alone: the rows of a call are the rows of a block, whose number varies.
    """

    name: str
    """Name for messages."""
    schema: pa.Schema
    """The added columns."""
    reads: Sequence[str]
    """Columns of the table that it is called with."""

    def __call__(self, rows: pa.Table) -> object:
        """Return the columns of `schema`, one value per row in order: a table, or a mapping of names to values.

        Args:
            rows: at least one row, with the columns of `reads`. The audio column holds the decoded recording as
                `SAMPLES`.
        """
        ...


@dataclass(eq=False)
class Computing(ColumnOp):
    """Op of a `Map` step.

    Attributes:
        function: called with the columns of `reads`.
        name: "Map module:function".
        reads: columns that it reads.
        schema: columns that it adds.
    """

    function: Callable[..., object]
    name: str
    reads: Sequence[str]
    schema: pa.Schema

    def __call__(self, rows: pa.Table) -> object:
        return self.function(rows)


SAMPLES = pa.struct([("samples", pa.large_list(pa.float32())), ("sample_rate", pa.int32())])
"""A decoded recording: its samples between -1 and 1, one channel at the sample rate of the model."""


def samples_column(recordings: Sequence[Sequence[np.ndarray] | None], sample_rate: int) -> "pa.ChunkedArray[Any]":
    """Return decoded recordings, chunks of int16 or float32, as a column of type `SAMPLES`; null for None."""
    samples = sample_lists(recordings, as_float=True)
    rates = pa.array(np.full(len(recordings), sample_rate, np.int32))
    is_null = pa.array([chunks is None for chunks in recordings], pa.bool_())
    return pa.chunked_array([pa.StructArray.from_arrays([samples, rates], fields=[*SAMPLES], mask=is_null)])


def added_columns(op: ColumnOp, rows: pa.Table) -> tuple[pa.Table, list[str | None]]:
    """Return the columns of an op, and for each row None or the reason why it failed; values of such rows are null.

    A call that raises an error is repeated with halves of its rows, so that only rows at fault fail.

    Raises:
        RunError: the op returned other columns than declared, other types, or not one value per row.
        DeviceLostError: the GPU that the op uses failed.
    """
    if rows.num_rows == 0:
        return op.schema.empty_table(), []
    failed: BaseException
    try:
        result = op(rows)
    except BaseException as error:  # a function of a user may raise any error, or call sys.exit
        tracebacks.raise_if_stopped(error)
        refuse_lost_device(op.name, error)
        failed = error
    else:
        # Outside of `try`: a result of the wrong kind ends the run instead of failing one row after another.
        return _checked(op, result, rows.num_rows), [None] * rows.num_rows
    if rows.num_rows > 1:
        why = tracebacks.named(failed)
        logger.debug("%s failed on %d rows and is called with halves of them: %s", op.name, rows.num_rows, why)
        middle = rows.num_rows // 2
        (first, reasons), (second, more) = (added_columns(op, half) for half in (rows[:middle], rows[middle:]))
        return pa.concat_tables([first, second]), reasons + more
    tracebacks.note(failed)
    nulls = [pa.nulls(1, field.type) for field in op.schema]
    return pa.table(nulls, schema=op.schema), [f"{op.name} failed: {_described(op, failed, rows)}"]


def refuse_lost_device(name: str, error: BaseException) -> None:
    """Raise if the GPU that a function uses failed.

    Raises:
        DeviceLostError: this process cannot call the function again.
    """
    message = tracebacks.message_of(error)
    if "CUDA error" in message and "out of memory" not in message:
        raise DeviceLostError(f"{name} failed, and cannot be called again by this process: {message}") from error


def _described(op: ColumnOp, error: BaseException, rows: pa.Table) -> str:
    function = getattr(op, "function", type(op))
    # Raised by pyarrow for a missing column.
    is_missing = isinstance(error, KeyError) and "in schema" in tracebacks.message_of(error)
    columns = f"; it is called with the columns {rows.column_names}" if is_missing else ""
    return f"{tracebacks.described(error, function.__module__)}{columns}"


def _checked(op: ColumnOp, result: object, num_rows: int) -> pa.Table:
    """Return a result as a table of the declared columns."""
    expected = ", ".join(f"{field.name!r}: {field.type}" for field in op.schema)
    where = tracebacks.at(getattr(op, "function", None))
    columns = _columns(result)
    if columns is None:
        raise RunError(
            f"{op.name} returned a {type(result).__name__}, expected a pyarrow.Table or dict of {expected}{where}"
        )
    if set(columns) != {*op.schema.names}:
        actual = ", ".join(map(repr, columns)) or "none"
        raise RunError(f"{op.name} returned the columns {actual}, expected {expected}{where}")
    arrays = []
    for field in op.schema:
        try:
            array = _array(columns[field.name], field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            actual = _type_of(columns[field.name])
            raise RunError(
                f"{op.name} returned column {field.name!r} as {actual}, expected {field.type}: {error}{where}"
            ) from error
        if len(array) != num_rows:
            raise RunError(
                f"{op.name} returned {count(len(array), 'value')} in column {field.name!r} for "
                f"{count(num_rows, 'row')}; expected one value per row{where}"
            )
        arrays.append(array)
    return pa.table(arrays, schema=op.schema)


def _columns(result: object) -> Mapping[str, object] | None:
    if isinstance(result, pa.Table | pa.RecordBatch):
        return dict(zip(result.schema.names, result.columns, strict=True))
    return cast("Mapping[str, object]", result) if isinstance(result, Mapping) else None


def _array(values: object, kind: pa.DataType) -> "pa.ChunkedArray[Any]":
    if isinstance(values, pa.Array):
        values = pa.chunked_array([values])
    if isinstance(values, pa.ChunkedArray):
        return values.cast(kind)
    if isinstance(values, np.ndarray) and values.ndim > 1:
        values = list(values)
    values = values if isinstance(values, np.ndarray) else list(cast("Iterable[object]", values))
    made = pa.array(cast("Sequence[Any]", values), kind)
    if pa.types.is_integer(_innermost(kind)) and len(made) and pa.types.is_floating(_innermost(pa.array(values).type)):
        pa.array(values).cast(kind)  # raises for fractions, which `pa.array` cuts off
    return pa.chunked_array([made])


def _innermost(kind: pa.DataType) -> pa.DataType:
    while isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        kind = kind.value_type
    return kind


def _type_of(values: object) -> str:
    kind = values.type if isinstance(values, pa.Array | pa.ChunkedArray) else getattr(values, "dtype", None)
    return type(values).__name__ if kind is None else f"{type(values).__name__} of {kind}"


UNREADABLE_TEXT = "unreadable_text"
"""Error of rows with a text that cannot be read, such as invalid UTF-8."""


class RowOp(Protocol):
    """Op of a step that filters rows; a row with a reason becomes `skipped: filtered`."""

    def __call__(self, rows: pa.Table) -> Sequence[str | None]:
        """Return for each row None, or the reason to skip it.

        Args:
            rows: rows of a piece in order, with at least the source columns that the step reads, without the audio.
                They include failed rows, for which the returned value has no effect. If the step reads added columns:
                the ok rows of a block, possibly empty, with the columns that it reads.
        """
        ...

    def judge(self, seconds: float) -> str | None:
        """Return None, or the reason to skip a row of this decoded duration; called if the step is after `Decode`."""
        return None


class Labelled(RowOp):
    """Op that skips rows without labels in the label shard of their shard, by its column `status`."""

    def __call__(self, rows: pa.Table) -> Sequence[str | None]:
        reason, statuses = "not labelled in source.labels: its status there is", rows.column(STATUS).to_pylist()
        return [None if status == OK else f"{reason} {status}" for status in statuses]


class Failure(str):
    """Failure of a user's function for a row, returned instead of a reason to skip it."""


class FunctionError(RunError):
    """A user's function raised an error."""


def reasons(op: RowOp, rows: pa.Table) -> Sequence[str | None]:
    """Return the reasons of an op for rows, and a `Failure` for each row on which a user's function fails.

    A call that raises an error is repeated with halves of its rows, so that only rows at fault fail.

    Raises:
        RunError: an op of raysp raised an error, or an op returned a wrong number of values.
        DeviceLostError: the GPU that the function uses failed.
    """
    if rows.num_rows == 0:
        return []
    try:
        return called(op, rows)
    except FunctionError as error:
        refuse_lost_device(name_of(op), error.__cause__ or error)
        if rows.num_rows == 1:
            return [failure_of(op, error)]
    middle = rows.num_rows // 2
    return [*reasons(op, rows[:middle]), *reasons(op, rows[middle:])]


def called(op: RowOp, rows: pa.Table) -> Sequence[str | None]:
    """Return the reasons of an op for rows.

    Raises:
        RunError: the op raised an error, and the message has the line in the user's file; or it returned a wrong number
            of values, or invalid values.
    """
    with calling(op):
        result: object = op(rows)
        texts = list(result) if isinstance(result, Iterable) else None
    expected = f"for {count(rows.num_rows, 'row')}; expected None or the reason to skip it for each"
    if texts is None:
        raise RunError(f"{name_of(op)} returned {result!r:.100} {expected}")
    if len(texts) != rows.num_rows:
        raise RunError(f"{name_of(op)} returned {count(len(texts), 'value')} {expected}")
    if wrong := [text for text in texts if not isinstance(text, str | None)]:
        raise RunError(f"{name_of(op)} returned {wrong[0]!r:.100} {expected}")
    return texts


def by_seconds(op: RowOp, seconds: float) -> str | None:
    """Return the reason of an op to skip a row of this decoded duration, or a `Failure` if a user's op raised an error.

    Raises:
        RunError: an op of raysp raised an error.
        DeviceLostError: the GPU that the op uses failed.
    """
    try:
        with calling(op):
            return op.judge(seconds)
    except FunctionError as error:
        return failure_of(op, error)


def failure_of(op: object, error: FunctionError) -> Failure:
    """Return the failure of a row from the error of a user's function, and keep its traceback.

    Raises:
        DeviceLostError: the GPU that the function uses failed.
    """
    cause = error.__cause__ or error
    refuse_lost_device(name_of(op), cause)
    tracebacks.note(cause)
    return Failure(error)


@contextmanager
def calling(op: object, function: object = None) -> Iterator[None]:
    """Translate errors of an op, or of a user's function that it calls, within the `with` block.

    Raises:
        FunctionError: for an error of a user's code, of any class.
        RunError: for an error of an op of raysp; errors of raysp pass unchanged.
    """
    try:
        yield
    except BaseException as error:
        tracebacks.raise_if_stopped(error)
        owner: str = (function or type(op)).__module__
        is_ours = owner.startswith("raysp.")
        if isinstance(error, FunctionError) or (is_ours and isinstance(error, RayspError)):
            raise
        kind = RunError if is_ours else FunctionError
        raise kind(f"{name_of(op)} failed: {tracebacks.described(error, owner)}") from error


def name_of(op: object) -> str:
    """Return the name of an op for messages."""
    return getattr(op, "name", f"{type(op).__module__}:{type(op).__qualname__}")


def apply(op: RowOp, statuses: Sequence[RowStatus], rows: pa.Table) -> None:
    """Mark the ok rows that an op rejects."""
    for row_status, reason in zip(statuses, reasons(op, rows), strict=True):
        judge(op, row_status, reason)


def judge(op: RowOp, row_status: RowStatus, reason: str | None) -> None:
    """Mark an ok row that an op rejects or fails on: by its columns (`reason`), else by its seconds."""
    if row_status.status != OK:
        return
    if reason is None and row_status.seconds is not None:
        reason = by_seconds(op, row_status.seconds)
    if isinstance(reason, Failure):
        row_status.fail("step_failed", reason)
    elif reason is not None:
        row_status.skip("filtered", reason)


def fail_unreadable(rows: pa.Table, statuses: Sequence[RowStatus], texts: Collection[str]) -> pa.Table:
    """Fail the rows with an unreadable value, and return the rows with null in its place.

    Args:
        rows: source columns of rows, without the audio; with `FAULT` if their kind of source reports faults.
        statuses: outcomes of the rows.
        texts: columns of bytes that are texts.
    """
    if FAULT in rows.column_names:
        _fail(statuses, rows.column(FAULT).to_pylist())
        rows = rows.drop_columns([FAULT])
    for place, name in enumerate(rows.column_names):
        column, faults = readable(rows.column(name), name, is_text=name in texts)
        if faults:
            _fail(statuses, faults)
            rows = rows.set_column(place, name, column)
    return rows


def _fail(statuses: Sequence[RowStatus], faults: Sequence[str | None]) -> None:
    for row_status, fault in zip(statuses, faults, strict=True):
        if fault is not None:
            row_status.fail(UNREADABLE_TEXT, fault)


Where = Sequence[tuple[str, str, object]] | Callable[[pa.Table], Sequence[bool]]

_COMPARE: dict[str, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    ">": pc.greater,
    "<=": pc.less_equal,
    ">=": pc.greater_equal,
}

MOST_TEXT = 120
"""Largest number of characters of a condition in messages."""
CUT = "…"
"""End of a message that was too long."""


@dataclass(frozen=True)
class Rule:
    """One condition of a `Keep` step."""

    place: str
    """Place in the step: `min_seconds`, `max_seconds`, `where.0`, or `where` of a function."""
    text: str
    """The condition, such as `language == 'en'`."""
    before: str = ""
    """Text of a reason before the value of the row."""
    after: str = ""
    """Text of a reason after the value of the row."""

    def reason(self, value: str = "") -> str:
        """Return the reason to leave out a row with this value."""
        return f"{self.before}{value}{self.after}"

    def overlap(self, message: str) -> int:
        """Return the number of characters of a row's message that come from this rule; 0 for another rule's message."""
        before, after = plain(f"{self.before}|").removesuffix("|"), plain(f"|{self.after}")[1:].removesuffix(CUT)
        if not message.startswith(before):
            return 0
        rest = message[len(before) :]
        if not self.after:
            return 0 if rest else len(before)
        if rest.endswith(after):
            return len(before) + len(after)
        if not rest.endswith(CUT):
            return 0
        cut = rest.removesuffix(CUT)
        return len(before) + next(len(cut) - place for place in range(len(cut) + 1) if after.startswith(cut[place:]))


def rules_of(
    min_seconds: float | None, max_seconds: float | None, where: Sequence[tuple[str, str, object]] | str | None
) -> Iterator[Rule]:
    """Yield the conditions of a `Keep` step, by its fields."""
    if min_seconds is not None:
        text = f"min_seconds={min_seconds}"
        yield Rule("min_seconds", text, after=f" s is shorter than {text}")
    if max_seconds is not None:
        text = f"max_seconds={max_seconds}"
        yield Rule("max_seconds", text, after=f" s is longer than {text}")
    if isinstance(where, str):
        yield Rule("where", f"where={where}", f"does not meet where={where}")
        return
    for number, (name, compare, value) in enumerate(where or ()):
        condition = f"{compare} {value!r}"
        text = f"{name} {condition}"
        shown = text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}{CUT}"
        yield Rule(f"where.{number}", shown, f"{name} is ", f", expected {condition}")


class Keeping(RowOp):
    """Op of a `Keep` step; `name` is the function of `where` as the step names it."""

    def __init__(
        self,
        *,
        where: Where | None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        name: str | None = None,
    ) -> None:
        self.where = where
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        conditions = (name or _named(where)) if callable(where) else where
        self._rules = {rule.place: rule for rule in rules_of(min_seconds, max_seconds, conditions)}

    @property
    def name(self) -> str:
        """Name for messages, with the name of the function."""
        return f"Keep {_named(self.where)}" if callable(self.where) else "Keep"

    def __call__(self, rows: pa.Table) -> Sequence[str | None]:
        if self.where is None:
            return [None] * rows.num_rows
        if callable(self.where):
            reason = self._rules["where"].reason()
            return [None if is_kept else reason for is_kept in self._by_function(self.where, rows)]
        reasons: list[str | None] = [None] * rows.num_rows
        for number, (name, compare, value) in enumerate(self.where):
            rule, column = self._rules[f"where.{number}"], column_of(rows, name)
            for row in np.flatnonzero(~meets(column, compare, value)).tolist():
                if reasons[row] is None:
                    reasons[row] = rule.reason(_shown(column[row]))
        return reasons

    def judge(self, seconds: float) -> str | None:
        """Return None, or the bound that a decoded duration is beyond."""
        if self.min_seconds is not None and seconds < self.min_seconds:
            return self._rules["min_seconds"].reason(f"{seconds:.3f}")
        if self.max_seconds is not None and seconds > self.max_seconds:
            return self._rules["max_seconds"].reason(f"{seconds:.3f}")
        return None

    def _by_function(self, function: Callable[[pa.Table], Sequence[bool]], rows: pa.Table) -> Sequence[bool]:
        with calling(self, function):
            result: object = function(rows)
            if isinstance(result, pa.Array | pa.ChunkedArray):
                result = result.to_pylist()
            values = cast("Sequence[Any]", result)
            kept = [value.as_py() if isinstance(value, pa.Scalar) else value for value in values]
        if len(kept) != rows.num_rows:
            raise RunError(
                f"{self.name} returned {count(len(kept), 'value')} for {count(rows.num_rows, 'row')}, "
                f"expected one for each row{tracebacks.at(function)}"
            )
        for value in kept:
            # A text such as "no", or NaN, is true to Python.
            if not (value is None or isinstance(value, bool | np.bool_) or value in (0, 1)):
                raise RunError(
                    f"{self.name} returned the value {value!r}, expected True or False for each "
                    f"row{tracebacks.at(function)}"
                )
        return kept


def _named(function: Callable[..., object]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _shown(value: "pa.Scalar[Any]") -> str:
    """Return a value for a message: null, or its `repr`, in the fewest digits that identify it."""
    if not value.is_valid:
        return "null"
    return str(np.float32(value.as_py())) if pa.types.is_float32(value.type) else repr(value.as_py())


def column_of(rows: pa.Table, name: str) -> "pa.ChunkedArray[Any]":
    """Return a column, or a field of a struct: `signal.snr`. The field of a null struct is null.

    Raises:
        ValueError: there is no such column or field.
    """
    if name in rows.column_names:
        return rows.column(name)
    column, _, field = name.partition(".")
    if column not in rows.column_names:
        raise ValueError(f"no column is named {name!r}; expected one of {rows.column_names}")
    kind = rows.schema.field(column).type
    if not isinstance(kind, pa.StructType):
        raise ValueError(f"no column is named {name!r}, and {column!r} is a {kind}; expected a struct for its field")
    if field not in (fields := [subfield.name for subfield in kind]):
        raise ValueError(f"{column!r} has no field {field!r}; expected one of {', '.join(fields)}")
    return cast("pa.ChunkedArray[Any]", pc.struct_field(rows.column(column), field))


def expected_value(kind: pa.DataType, compare: str) -> str | None:
    """Return the values that a column of a type can be compared with, for messages; None for other types."""
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        single, many = "a number without quotes", "numbers without quotes"
    elif types.is_string(kind) or types.is_large_string(kind):
        single, many = "a text in quotes", "texts in quotes"
    elif types.is_boolean(kind):
        single, many = "True or False", "True or False"
    else:
        return None
    return f"expected {f'a list of {many}' if compare in ('in', 'not in') else single}"


def meets(column: "pa.ChunkedArray[Any]", compare: str, value: object) -> npt.NDArray[np.bool_]:
    """Return for each value of a column whether it meets a condition; null never does.

    Raises:
        pa.ArrowException: the value does not fit the column's type.
    """
    if pa.types.is_null(column.type):
        return np.zeros(len(column), bool)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if compare in ("in", "not in"):
        is_member = pc.is_in(column, value_set=pa.array(cast("Sequence[Any]", value)).cast(column.type))
        mask = is_member if compare == "in" else pc.invert(is_member)
        # `is_in` is False for null, so its inverse would keep such rows.
        return np.asarray(pc.and_(mask, column.is_valid()))
    return np.asarray(pc.fill_null(_COMPARE[compare](column, value), False))
