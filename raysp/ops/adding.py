"""Ops of steps that add columns, their application to rows, and the way of added columns through other ops."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa

from raysp import tracebacks
from raysp.devices import DeviceLostError
from raysp.errors import RunError
from raysp.words import count

logger = logging.getLogger(__name__)


NO_COLUMNS = pa.schema([])


class ColumnOp(Protocol):
    """Op of a step that adds columns.

    A value must depend on its own row alone, since the rows of a call are those of a block, of which there is no fixed
    number.
    """

    name: str
    """Name for messages."""
    schema: pa.Schema
    """The added columns."""
    reads: Sequence[str]
    """Columns that it is called with."""

    def __call__(self, rows: pa.Table) -> object:
        """Return the columns of `schema`, one value per row in order: a table, or a mapping of names to values.

        Args:
            rows: at least one row, with the columns of `reads`. The audio column holds the decoded recording as
                `SAMPLES`.
        """
        ...


class Computing(ColumnOp):
    """Op of a `Map` step.

    Args:
        function: called with the columns of `reads`.
        name: "module:function".
        reads: columns that it reads.
        schema: columns that it adds.
    """

    def __init__(self, function: Callable[..., object], *, name: str, reads: Sequence[str], schema: pa.Schema) -> None:
        self.function = function
        self.name = f"Map {name}"
        self.reads = reads
        self.schema = schema

    def __call__(self, rows: pa.Table) -> object:
        """Return the result of the function."""
        return self.function(rows)


SAMPLES = pa.struct([("samples", pa.large_list(pa.float32())), ("sample_rate", pa.int32())])
"""A decoded recording: its samples between -1 and 1, one channel at the sample rate of the model."""


def samples_column(recordings: Sequence[Sequence[np.ndarray] | None], sample_rate: int) -> "pa.ChunkedArray[Any]":
    """Return decoded recordings, int16 or float32 in chunks, as a column of type `SAMPLES`; null for None."""
    offsets = np.zeros(len(recordings) + 1, np.int64)
    np.cumsum([sum(map(len, chunks or ())) for chunks in recordings], out=offsets[1:])
    values = np.empty(int(offsets[-1]), np.float32)
    start = 0
    for chunk in (chunk for chunks in recordings for chunk in chunks or ()):
        part = values[start : start + len(chunk)]
        if chunk.dtype == np.int16:
            # By a power of two, which is exact in float32.
            np.multiply(chunk, np.float32(1 / 32768), out=part)
        else:
            part[:] = chunk
        start += len(chunk)
    samples = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, pa.float32()))
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
    except (Exception, SystemExit) as error:  # a function of a user may raise any error, or call sys.exit
        tracebacks.raise_if_stopped(error)
        message = tracebacks.message_of(error)
        if "CUDA error" in message and "out of memory" not in message:
            raise DeviceLostError(f"{op.name} failed, and cannot be called again by this process: {message}") from error
        failed = error
    else:
        # Not in `try`: a result of the wrong kind ends the run instead of failing one row after another.
        return _checked(op, result, rows.num_rows), [None] * rows.num_rows
    if rows.num_rows > 1:
        why = tracebacks.named(failed)
        logger.debug("%s failed on %d rows and is called with halves of them: %s", op.name, rows.num_rows, why)
        middle = rows.num_rows // 2
        (first, reasons), (second, more) = (added_columns(op, one) for one in (rows[:middle], rows[middle:]))
        return pa.concat_tables([first, second]), reasons + more
    tracebacks.note(failed)
    nulls = [pa.nulls(1, field.type) for field in op.schema]
    return pa.table(nulls, schema=op.schema), [f"{op.name} failed: {_described(op, failed, rows)}"]


def _described(op: ColumnOp, error: BaseException, rows: pa.Table) -> str:
    function = getattr(op, "function", type(op))
    # By pyarrow: a column that there is not.
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
        found = ", ".join(map(repr, columns)) or "none"
        raise RunError(f"{op.name} returned the columns {found}, expected {expected}{where}")
    arrays = []
    for field in op.schema:
        try:
            array = _array(columns[field.name], field.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            found = _type_of(columns[field.name])
            raise RunError(
                f"{op.name} returned column {field.name!r} as {found}, expected {field.type}: {error}{where}"
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


def chosen(table: pa.Table, schema: pa.Schema, rows: Sequence[int | None]) -> pa.Table:
    """Return the added columns of some rows of a table, null for None and if the table lacks the columns."""
    numbers = pa.array(rows, pa.int64())
    columns = [
        table.column(field.name).take(numbers) if field.name in table.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def beside(table: pa.Table, added: pa.Table) -> pa.Table:
    """Return a table with the columns of another one appended."""
    for field, column in zip(added.schema, added.columns, strict=True):
        table = table.append_column(field, column)
    return table
