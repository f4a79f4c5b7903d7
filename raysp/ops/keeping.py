"""Op of a `Keep` step: keeps the rows that meet its conditions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp import tracebacks
from raysp.errors import RunError
from raysp.ops.filtering import RowOp
from raysp.ops.rows import plain
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

MOST_TEXT = 120
"""Characters of a condition as it is shown."""
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
        """Return the number of characters of a row's message that are this rule's; 0 if it did not give the message."""
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
        conditions = (name or _name(where)) if callable(where) else where
        self._rules = {rule.place: rule for rule in rules_of(min_seconds, max_seconds, conditions)}

    @property
    def name(self) -> str:
        """Name for messages, with that of the function."""
        return f"Keep {_name(self.where)}" if callable(self.where) else "Keep"

    @property
    def owner(self) -> str:
        """Module of the function."""
        return self.where.__module__ if callable(self.where) else type(self).__module__

    def __call__(self, rows: pa.Table) -> Sequence[str | None]:
        """Return for each row None, or the first condition that it does not meet, with its value."""
        if self.where is None:
            return [None] * rows.num_rows
        if callable(self.where):
            reason = self._rules["where"].reason()
            return [None if is_wanted else reason for is_wanted in _by_function(self.where, rows)]
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


def _by_function(function: Callable[[pa.Table], Sequence[bool]], rows: pa.Table) -> Sequence[bool]:
    given: object = function(rows)
    if isinstance(given, pa.Array | pa.ChunkedArray):
        given = given.to_pylist()
    wanted = [value.as_py() if isinstance(value, pa.Scalar) else value for value in cast("Sequence[Any]", given)]
    if len(wanted) != rows.num_rows:
        raise RunError(
            f"Keep {_name(function)} returned {count(len(wanted), 'value')} for {count(rows.num_rows, 'row')}, "
            f"expected one for each row{tracebacks.at(function)}"
        )
    for value in wanted:
        # A text such as "no", or NaN, is true to Python.
        if not (value is None or isinstance(value, bool | np.bool_) or value in (0, 1)):
            raise RunError(
                f"Keep {_name(function)} returned the value {value!r}, expected True or False for each "
                f"row{tracebacks.at(function)}"
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


def expected_value(kind: pa.DataType, compare: str) -> str | None:
    """Return the values that a column of a type can be compared with, for messages; None for other types."""
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        one, many = "a number without quotes", "numbers without quotes"
    elif types.is_string(kind) or types.is_large_string(kind):
        one, many = "a text in quotes", "texts in quotes"
    elif types.is_boolean(kind):
        one, many = "True or False", "True or False"
    else:
        return None
    return f"expected {f'a list of {many}' if compare in ('in', 'not in') else one}"


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
