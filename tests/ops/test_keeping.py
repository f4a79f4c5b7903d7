"""Keep: conditions on columns, durations and labels; null never meets one."""

import operator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raysp
from raysp import PlanError, SpecError
from raysp.ops.step_ops import meets
from tests.corpora import CHECKPOINT

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


@given(st.data(), st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(OPERATORS)))
def test_every_operator_does_what_python_does_and_null_never_meets_it(data, kind, compare):
    values, type_ = KINDS[kind]
    rows = data.draw(st.lists(st.none() | values, max_size=8))
    value = tuple(data.draw(st.lists(values, min_size=1, max_size=3))) if "in" in compare else data.draw(values)
    column = pa.chunked_array([pa.array(part, type_) for part in (rows[:3], rows[3:])])
    expected = [row is not None and OPERATORS[compare](row, value) for row in rows]
    assert meets(column, compare, value).tolist() == expected


def test_a_duration_is_kept_from_the_least_to_the_most_both_included():
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])
    waves = [np.zeros(num_samples, np.float32) for num_samples in (1599, 1600, 3200, 3201)]
    with raysp.Labeller([raysp.Decode(), raysp.Keep(0.1, max_seconds=0.2), label]) as labeller:
        statuses = labeller.arrays(waves, 16_000).column("status").to_pylist()
    assert statuses == ["skipped", "ok", "ok", "skipped"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("text", "==", "a"), r"steps\[2\] Keep after Label reads 'text', .* one of pred_text, pred_score, pred"),
        (("signal.snrs", ">", 1), r"steps\[2\] Keep: 'signal' has no field 'snrs'; expected one of loudness, peak, "),
        (("pred_text.a", ">", 1), r"no column is named 'pred_text.a', and 'pred_text' is a string; expected a struct"),
        (("signal.snr", ">", "a"), r"steps\[2\] Keep: Keep cannot compare 'signal.snr' > 'a', a column of float"),
    ],
)
def test_conditions_that_no_column_can_meet_are_refused_with_those_that_exist(where, message):
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(words=True), raysp.Signals()])
    with pytest.raises((SpecError, PlanError), match=message):
        raysp.Labeller([raysp.Decode(), label, raysp.Keep(where=[where])])
