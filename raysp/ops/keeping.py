"""Op of a `Keep` step: keeps the rows that meet its conditions."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.ops.filtering import RowOp
from raysp.words import count

Where = Sequence[tuple[str, str, object]] | Callable[[pa.Table], Sequence[bool]]

_COMPARE: dict[str, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    ">": pc.greater,
    "<=": pc.less_equal,
    ">=": pc.greater_equal,
}


class Keeping(RowOp):
    """Op of a `Keep` step."""

    def __init__(
        self, *, where: Where | None, min_seconds: float | None = None, max_seconds: float | None = None
    ) -> None:
        self.where = where
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds

    def __call__(self, rows: pa.Table) -> Sequence[str | None]:
        """Return for each row None, or the first condition that it does not meet, with its value."""
        if self.where is None:
            return [None] * rows.num_rows
        if callable(self.where):
            reason = f"does not meet where={_name(self.where)}"
            return [None if is_wanted else reason for is_wanted in _by_function(self.where, rows)]
        reasons: list[str | None] = [None] * rows.num_rows
        for name, compare, value in self.where:
            column = column_of(rows, name)
            for row in np.flatnonzero(~meets(column, compare, value)).tolist():
                if reasons[row] is None:
                    reasons[row] = f"{name} is {_shown(column[row])}, expected {compare} {value!r}"
        return reasons

    def judge(self, seconds: float) -> str | None:
        """Return None, or the bound that a decoded duration is beyond."""
        if self.min_seconds is not None and seconds < self.min_seconds:
            return f"{seconds:.3f} s is shorter than min_seconds={self.min_seconds}"
        if self.max_seconds is not None and seconds > self.max_seconds:
            return f"{seconds:.3f} s is longer than max_seconds={self.max_seconds}"
        return None


def _by_function(function: Callable[[pa.Table], Sequence[bool]], rows: pa.Table) -> Sequence[bool]:
    given: object = function(rows)
    if isinstance(given, pa.Array | pa.ChunkedArray):
        given = given.to_pylist()
    wanted = list(cast("Sequence[bool]", given))
    if len(wanted) != rows.num_rows:
        raise ValueError(
            f"{_name(function)} returned {count(len(wanted), 'value')} for {count(rows.num_rows, 'row')}, expected one "
            "for each row"
        )
    return wanted


def _name(function: Callable[..., object]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _shown(value: "pa.Scalar[Any]") -> str:
    """Return a value as a message shows it: null, or as Python does, in the fewest digits that tell it from others."""
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
    if field not in (fields := [one.name for one in kind]):
        raise ValueError(f"{column!r} has no field {field!r}; expected one of {', '.join(fields)}")
    return cast("pa.ChunkedArray[Any]", pc.struct_field(rows.column(column), field))


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
        found = pc.is_in(column, value_set=pa.array(cast("Sequence[Any]", value)).cast(column.type))
        mask = found if compare == "in" else pc.invert(found)
        # `is_in` is False for null, so its inverse would keep such rows.
        return np.asarray(pc.and_(mask, column.is_valid()))
    return np.asarray(pc.fill_null(_COMPARE[compare](column, value), False))
