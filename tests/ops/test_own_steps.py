"""Steps of a user: columns that they add, rows that they leave out or fail for, and results of another shape."""

import re

import numpy as np
import pyarrow as pa
import pytest

import raysp
from raysp import RunError, SpecError
from tests.corpora import CHECKPOINT, a_pipeline, rows_table, wav
from tests.user_specs import Short, Spoken, loudness

NUMBERS = {"list": list, "numpy": np.array, "arrow": pa.array, "tuple": tuple}
RESULTS: dict[str, object] = {}


def given(rows: pa.Table) -> object:
    """Return the result that a test gave."""
    return RESULTS["given"]


def added(result: object) -> pa.Table:
    """Return the columns that a step adds to five rows by a function with this result."""
    RESULTS["given"] = result
    adding = raysp.Map(given, adds={"n": "float32", "s": "list<string>"}, reads=["text"])
    steps = [adding, raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]
    with raysp.Labeller(steps) as labeller:
        return labeller(rows_table(5, audio=wav(800)))


@pytest.mark.parametrize("kind", NUMBERS)
def test_values_of_any_kind_become_columns_of_the_declared_types_and_order(kind):
    texts = [["x"], [], None, ["y"], ["z"]]
    found = added({"s": texts, "n": NUMBERS[kind]([1, 2.5, 3, 4, 5])})
    assert [found.schema.field(name).type for name in "ns"] == [pa.float32(), pa.list_(pa.string())]
    assert found.column_names.index("n") == found.column_names.index("s") - 1
    assert (found.column("n").to_pylist(), found.column("s").to_pylist()) == ([1, 2.5, 3, 4, 5], texts)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned a NoneType, expected a pyarrow.Table or dict of 'n': float, 's': list<item: string>"),
        ({"n": [1] * 5}, "returned the columns 'n', expected 'n': float, 's'"),
        ({"n": [1] * 4, "s": [[]] * 5}, "returned 4 values in column 'n' for 5 rows; expected one value per row"),
        ({"n": ["x"] * 5, "s": [[]] * 5}, "returned column 'n' as list, expected float: "),
    ],
)
def test_results_of_another_shape_end_the_work_with_function_found_and_expected(result, message):
    with pytest.raises(RunError, match=re.escape(f"Map {__name__}:given {message}")):
        added(result)


@pytest.mark.parametrize(
    ("result", "found", "is_behind"), [([None], "1 value for 2 rows", False), ([5, 5], "5 for 2 rows", True)]
)
def test_a_filter_that_returns_other_values_is_named(result, found, is_behind):
    steps = [raysp.Decode(), Short(result)] if is_behind else [Short(result), raysp.Decode()]
    with pytest.raises(RunError, match=rf"FirstAlone returned {found}; expected None or the reason"):
        raysp.Labeller([*steps, a_pipeline().label])(rows_table(2, audio=wav(800)))


def test_steps_that_cannot_work_so_are_refused():
    adding = raysp.Map(loudness, adds={"pred_frame_ids": "int8"}, reads=["text"])
    with pytest.raises(RunError, match="a step adds the column 'pred_frame_ids', a name that an output uses"):
        raysp.Labeller([raysp.Decode(), adding, a_pipeline().label])
    with pytest.raises(SpecError, match="Spoken by seconds needs decoded audio: move it after Decode"):
        a_pipeline(steps=[Spoken(most_per_second=1), raysp.Decode(), a_pipeline().label])
    with pytest.raises(SpecError, match=r"steps\[1\] Spoken: it cannot use the audio column 'audio'"):
        a_pipeline(keep=[Spoken(column="audio")])
