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
        """Return for each row None, or the conditions that its source columns do not meet."""
        wanted = self.wanted(rows)
        if wanted is None:
            return [None] * rows.num_rows
        reason = f"does not meet where={self._words()}"
        return [None if is_wanted else reason for is_wanted in wanted]

    def judge(self, seconds: float) -> str | None:
        """Return None, or the bound that a decoded duration is beyond."""
        if self.min_seconds is not None and seconds < self.min_seconds:
            return f"{seconds:.3f} s is shorter than min_seconds={self.min_seconds}"
        if self.max_seconds is not None and seconds > self.max_seconds:
            return f"{seconds:.3f} s is longer than max_seconds={self.max_seconds}"
        return None

    def wanted(self, columns: pa.Table) -> Sequence[bool] | None:
        """Return for each row whether its source columns meet `where`; None without `where`."""
        if self.where is None:
            return None
        if callable(self.where):
            return self._by_function(self.where, columns)
        mask = np.ones(columns.num_rows, bool)
        for name, compare, value in self.where or ():
            mask &= meets(columns.column(name), compare, value)
        return cast("Sequence[bool]", mask)

    def _by_function(self, function: Callable[[pa.Table], Sequence[bool]], columns: pa.Table) -> Sequence[bool]:
        given: object = function(columns)
        if isinstance(given, pa.Array | pa.ChunkedArray):
            given = given.to_pylist()
        wanted = list(cast("Sequence[bool]", given))
        if len(wanted) != columns.num_rows:
            raise ValueError(
                f"{self._words()} returned {count(len(wanted), 'value')} for {count(columns.num_rows, 'row')}"
            )
        return wanted

    def _words(self) -> str:
        if callable(self.where):
            return f"{self.where.__module__}:{self.where.__qualname__}"
        return str([tuple(condition) for condition in self.where or ()])


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
        return np.asarray(pc.and_(mask, column.is_valid()))
    return np.asarray(pc.fill_null(_COMPARE[compare](column, value), False))
