"""Keep: conditions on columns and durations, null never meets one."""

import operator

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from raysp.ops.rows import RowStatus
from raysp.ops.step_ops import Keeping, apply, meets

OPERATORS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "in": lambda a, b: a in b,
    "not in": lambda a, b: a not in b,
}
KINDS = {
    "string": (st.sampled_from(["de", "en", "fr", ""]), pa.string()),
    "dictionary": (st.sampled_from(["de", "en", "fr", ""]), pa.dictionary(pa.int32(), pa.string())),
    "large_string": (st.sampled_from(["de", "en", "fr", ""]), pa.large_string()),
    "int": (st.integers(-2, 2), pa.int32()),
    "float": (st.sampled_from([-1.5, 0.0, 2.5]), pa.float64()),
    "bool": (st.booleans(), pa.bool_()),
}


def judged(keeping: Keeping, columns: pa.Table, seconds: list[float | None] | None = None) -> list[RowStatus]:
    statuses = [RowStatus(row) for row in range(columns.num_rows)]
    for row_status, value in zip(statuses, seconds or [None] * len(statuses), strict=True):
        row_status.seconds = value
    apply(keeping, statuses, columns)
    return statuses


@given(st.data(), st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(OPERATORS)))
def test_every_operator_does_what_python_does_and_null_never_meets_it(data, kind, compare):
    values, type_ = KINDS[kind]
    rows = data.draw(st.lists(st.none() | values, max_size=8))
    value = tuple(data.draw(st.lists(values, min_size=1, max_size=3))) if "in" in compare else data.draw(values)
    column = pa.chunked_array([pa.array(part, type_) for part in (rows[:3], rows[3:])])
    expected = [row is not None and OPERATORS[compare](row, value) for row in rows]
    assert meets(column, compare, value).tolist() == expected


@given(st.lists(st.floats(0, 10), max_size=6), st.none() | st.floats(0, 10), st.none() | st.floats(0, 10))
def test_a_duration_is_kept_from_the_least_to_the_most_both_included(seconds, low, high):
    statuses = judged(Keeping(where=None, min_seconds=low, max_seconds=high), pa.table({"a": seconds}), seconds)
    expected = [(low is None or low <= s) and (high is None or s <= high) for s in seconds]
    assert [row_status.status == "ok" for row_status in statuses] == expected
