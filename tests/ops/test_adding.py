"""Columns that steps add: results of functions, rows for which they fail, and label rows with added columns."""

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from raysp import RunError
from raysp.ops.step_ops import Computing, added_columns, samples_column
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, wav, write_shard
from tests.user_specs import Counted, called, decibels, loudness

SCHEMA = pa.schema([("n", pa.float32()), ("s", pa.list_(pa.string()))])
ROWS = pa.table({"a": [1, 2, 3, 4, 5]})
ADDED = ("words", "loudness", "duration", "decibels", "called")


def computed(function, rows: pa.Table = ROWS) -> tuple[pa.Table, list[str | None]]:
    return added_columns(Computing(function, name="my:function", reads=("a",), schema=SCHEMA), rows)


@pytest.mark.parametrize(
    "numbers",
    [[1, 2.5, None, 4, 5], np.array([1, 2.5, np.nan, 4, 5]), pa.array([1, 2.5, None, 4, 5]), (1, 2.5, None, 4, 5)],
    ids=["list", "numpy", "arrow", "tuple"],
)
def test_values_of_any_kind_become_columns_of_the_declared_types_and_order(numbers):
    found, failures = computed(lambda rows: {"s": [["x"], [], None, ["y"], ["z"]], "n": numbers})
    assert (found.schema, failures) == (SCHEMA, [None] * 5)
    assert found.column("n").to_pylist()[:2] == [1, 2.5]
    assert found.column("s").to_pylist() == [["x"], [], None, ["y"], ["z"]]
    assert computed(lambda rows: pa.table({"n": range(5), "s": [["x"]] * 5}))[0].column("n").to_pylist() == [*range(5)]


def test_only_rows_for_which_a_function_fails_alone_fail():
    calls = []

    def fussy(rows):
        values = rows.column("a").to_pylist()
        calls.append(values)
        if 2 in values or 5 in values:
            raise KeyError("odd")
        return {"n": values, "s": [[]] * len(values)}

    found, failures = computed(fussy)
    assert found.column("n").to_pylist() == [1, None, 3, 4, None]
    assert [failure is None for failure in failures] == [True, False, True, True, False]
    assert re.fullmatch(r"Map my:function failed: tests/ops/test_adding\.py:\d+: KeyError: 'odd'", failures[1])
    assert calls[0] == [1, 2, 3, 4, 5]
    assert [2] in calls


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned a NoneType, expected a pyarrow.Table or dict of 'n': float, 's': list<item: string>"),
        ({"n": [1] * 5}, "returned the columns 'n', expected 'n': float, 's'"),
        ({"n": [1] * 5, "s": [[]] * 5, "t": [1] * 5}, "returned the columns 'n', 's', 't', expected"),
        ({"n": [1] * 4, "s": [[]] * 5}, "returned 4 values in column 'n' for 5 rows; expected one value per row"),
        ({"n": ["x"] * 5, "s": [[]] * 5}, "returned column 'n' as list, expected float: "),
        ({"n": pa.array(["x"] * 5), "s": [[]] * 5}, "returned column 'n' as StringArray of string, expected float: "),
        ({"n": 1.5, "s": [[]] * 5}, "returned column 'n' as float, expected float: "),
    ],
)
def test_results_of_another_shape_end_the_work_with_function_found_and_expected(result, message):
    with pytest.raises(RunError) as caught:
        computed(lambda rows: result)
    assert str(caught.value).startswith(f"Map my:function {message}")


def test_samples_are_float32_between_minus_one_and_one():
    whole, half = np.array([-32768, 16384], np.int16), np.array([0.5], np.float32)
    column = samples_column([[whole], None, [half, whole], []], 8000)
    assert column.to_pylist() == [
        {"samples": [-1, 0.5], "sample_rate": 8000},
        None,
        {"samples": [0.5, -1, 0.5], "sample_rate": 8000},
        {"samples": [], "sample_rate": 8000},
    ]


ROWS_OF_A_RUN = {
    "plain": (wav(9000, seed=1), "one two"),
    "long": (wav(200_000, seed=2), "one"),
    "long and refused": (wav(200_000, seed=3), "unbearable"),
    "refused": (wav(9000, seed=4), "unbearable"),
    "left out": (wav(9000), "left out"),
    "broken": (b"not a recording", "one"),
    "too short": (wav(200), "one"),
    "other": (wav(8000, rate=8000, seed=5), ""),
}
"""Recordings and texts by ids."""


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    audio = pa.array([{"bytes": one, "path": None} for one, _ in ROWS_OF_A_RUN.values()], AUDIO)
    return pa.table({"id": [*ROWS_OF_A_RUN], "audio": audio, "text": [text for _, text in ROWS_OF_A_RUN.values()]})


@pytest.fixture(scope="module")
def chained(rows, tmp_path_factory) -> raysp.Pipeline:
    """A pipeline that has run, whose steps read the columns that others add."""
    folder = tmp_path_factory.mktemp("chained")
    write_shard(folder / "in" / "a.parquet", table=rows)
    steps = [
        raysp.Keep(where=[("text", "!=", "left out")]),
        Counted(),
        raysp.Decode(),
        raysp.Map(loudness, adds={"loudness": "float32", "duration": "float64"}, reads=["audio", "text"]),
        raysp.Map(decibels, adds={"decibels": "float32"}, reads=["loudness", "words"]),
        raysp.Keep(where=[("words", "<", 2), ("decibels", ">", -99.0)]),
        raysp.Map(called, adds={"called": "bool"}, reads=["decibels"]),
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], window_seconds=6, overlap_seconds=2),
    ]
    pipeline = a_pipeline(f"{folder}/in", folder / "out", steps=steps)
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline


@pytest.fixture(scope="module")
def found(chained) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in pq.read_table(f"{chained.sink.url}/a.parquet").to_pylist()}


@pytest.mark.lengthy
def test_values_are_those_of_whole_recordings_and_null_in_rows_without_a_label(found):
    assert {name: row["error_type"] for name, row in found.items()} == {
        "plain": "filtered",
        "long": None,
        "long and refused": "step_failed",
        "refused": "step_failed",
        "left out": "filtered",
        "broken": "unsupported_format",
        "too short": "too_short",
        "other": None,
    }
    for name, row in found.items():
        recording, text = ROWS_OF_A_RUN[name]
        if row["status"] != "ok":
            assert [row[column] for column in (*ADDED, "pred_text")] in ([None] * 6, [None] * 5 + [""])
            continue
        samples, rate = soundfile.read(io.BytesIO(recording))
        assert (row["words"], row["called"]) == (len(text.split()), True)
        assert row["duration"] == row["seconds"] == len(samples) / rate
        assert row["decibels"] == pytest.approx(20 * np.log10(row["loudness"]), rel=1e-4)
        if rate == 16_000:
            assert row["loudness"] == pytest.approx(np.sqrt(np.mean(samples**2)), rel=1e-4)
    assert found["plain"]["error_message"] == "words is 2, expected < 2"
    failed = r"Map tests\.user_specs:loudness failed: tests/user_specs\.py:\d+: ValueError: cannot bear .'unbearable'."
    for name in ("refused", "long and refused"):
        assert re.fullmatch(failed, found[name]["error_message"])


@pytest.mark.slow
def test_rows_alone_have_the_values_that_they_have_in_a_run(chained, found, rows):
    checked = raysp.verify(chained.sink.url, sample=2, pipeline=chained)
    assert (checked.differences, checked.sampled_equal) == ((), checked.sampled)
    with raysp.Labeller(chained.steps) as labeller:
        together = labeller(rows)
        alone = pa.concat_tables([labeller(rows[number : number + 1]) for number in (0, 1, 3)])
    assert together.column_names[-7:] == [*ADDED, "pred_text", "pred_score"]
    for row in [*together.to_pylist(), *alone.to_pylist()]:
        assert {name: row[name] for name in ADDED} == {name: found[row["id"]][name] for name in ADDED}


def test_a_column_with_the_name_of_a_staged_one_is_refused():
    steps = [
        raysp.Decode(),
        raysp.Map(loudness, adds={"pred_frame_ids": "int8"}, reads=["text"]),
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()]),
    ]
    with pytest.raises(RunError, match="a step adds the column 'pred_frame_ids', a name that an output uses"):
        raysp.Labeller(steps)
