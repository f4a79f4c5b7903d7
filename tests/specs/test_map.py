"""`Map`: which functions, types and columns it takes."""

import functools

import pyarrow as pa
import pytest

import raysp
from raysp import SpecError
from tests.corpora import a_pipeline
from tests.user_specs import odd_rows

ADDS = {"added": "float32"}


def a_map(**fields):
    return raysp.Map(fields.pop("function", odd_rows), **{"adds": ADDS, "reads": ["text"], **fields})


not_named = lambda rows: rows  # noqa: E731


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"function": not_named}, "Map.function: found <function <lambda> at "),
        ({"function": functools.partial(odd_rows)}, "Map.function: found functools.partial("),
        ({"function": "odd_rows"}, "Map.function: found 'odd_rows'; expected a function at the top level of a module"),
        ({"adds": {}}, "Map.adds: no column is named"),
        ({"reads": []}, "reads is empty; give the columns"),
        ({"adds": {"added": "float33"}}, "Map.adds: column 'added': "),
        ({"adds": {"added": pa.dictionary(pa.int8(), pa.string())}}, "Map.adds: column 'added': "),
    ],
)
def test_functions_types_and_fields_that_cannot_be_are_refused(fields, message):
    with pytest.raises(SpecError) as caught:
        a_map(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([a_map(adds={"pred_text": "string"})], "two columns would be named 'pred_text': one of steps[1] Map"),
        ([a_map(adds={"wave": "string"})], "steps[1] Map adds the column 'wave', a name that raysp uses between steps"),
        (
            [raysp.Keep(where=[("added", ">", 1)]), a_map()],
            "steps[2] Map adds the column 'added', and steps[1] Keep reads a column of that name; a step reads columns "
            "of the source and of the steps before it: rename the added one, or move the step that reads it",
        ),
    ],
)
def test_clashing_columns_are_refused_when_the_pipeline_is_made(steps, message):
    with pytest.raises(SpecError) as caught:
        a_pipeline(sink=raysp.Parquet("out", keep=["kept"]), keep=steps)
    assert message in str(caught.value)


def test_samples_are_read_after_decode_only():
    step, label = a_map(reads=["audio"]), a_pipeline().label
    a_pipeline(steps=[raysp.Decode(), step, label])
    with pytest.raises(SpecError, match=r"steps\[0\] Map reads decoded samples \('audio'\): move it after Decode"):
        a_pipeline(steps=[step, raysp.Decode(), label])
