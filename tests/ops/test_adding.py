"""Columns that steps add: results of functions, rows for which they fail, and label rows with added columns."""

import io
import re

import numpy as np
import pyarrow as pa
import pytest
import soundfile

import raysp
from raysp import RunError
from raysp.ops.step_ops import Computing, added_columns
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, wav, write_shard
from tests.user_specs import Counted, called, decibels, loudness

SCHEMA = pa.schema([("n", pa.float32()), ("s", pa.list_(pa.string()))])
ROWS = pa.table({"a": [1, 2, 3, 4, 5]})
ADDED = ("words", "loudness", "duration", "decibels", "called")


def computed(function, rows: pa.Table = ROWS) -> tuple[pa.Table, list[str | None]]:
    return added_columns(Computing(function, name="my:function", reads=("a",), schema=SCHEMA), rows)


@pytest.mark.parametrize("kind", [list, np.array, pa.array, tuple])
def test_values_of_any_kind_become_columns_of_the_declared_types_and_order(kind):
    numbers = kind([1, 2.5, 3, 4, 5])
    found, failures = computed(lambda rows: {"s": [["x"], [], None, ["y"], ["z"]], "n": numbers})
    assert (found.schema, failures) == (SCHEMA, [None] * 5)
    assert found.column("n").to_pylist()[:2] == [1, 2.5]
    assert found.column("s").to_pylist() == [["x"], [], None, ["y"], ["z"]]
    assert computed(lambda rows: pa.table({"n": range(5), "s": [["x"]] * 5}))[0].column("n").to_pylist() == [*range(5)]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned a NoneType, expected a pyarrow.Table or dict of 'n': float, 's': list<item: string>"),
        ({"n": [1] * 5}, "returned the columns 'n', expected 'n': float, 's'"),
        ({"n": [1] * 4, "s": [[]] * 5}, "returned 4 values in column 'n' for 5 rows; expected one value per row"),
        ({"n": ["x"] * 5, "s": [[]] * 5}, "returned column 'n' as list, expected float: "),
        ({"n": 1.5, "s": [[]] * 5}, "returned column 'n' as float, expected float: "),
    ],
)
def test_results_of_another_shape_end_the_work_with_function_found_and_expected(result, message):
    with pytest.raises(RunError) as caught:
        computed(lambda rows: result)
    assert str(caught.value).startswith(f"Map my:function {message}")


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


@pytest.mark.slow
def test_values_are_those_of_whole_recordings_in_a_run_and_alone_and_null_without_a_label(tmp_path):
    audio = pa.array([{"bytes": one, "path": None} for one, _ in ROWS_OF_A_RUN.values()], AUDIO)
    rows = pa.table({"id": [*ROWS_OF_A_RUN], "audio": audio, "text": [text for _, text in ROWS_OF_A_RUN.values()]})
    write_shard(tmp_path / "in" / "a.parquet", table=rows)
    steps = [  # each reads what others add
        raysp.Keep(where=[("text", "!=", "left out")]),
        Counted(),
        raysp.Decode(),
        raysp.Map(loudness, adds={"loudness": "float32", "duration": "float64"}, reads=["audio", "text"]),
        raysp.Map(decibels, adds={"decibels": "float32"}, reads=["loudness", "words"]),
        raysp.Keep(where=[("words", "<", 2), ("decibels", ">", -99.0)]),
        raysp.Map(called, adds={"called": "bool"}, reads=["decibels"]),
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], window_seconds=6, overlap_seconds=2),
    ]
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=steps)
    raysp.run(pipeline, engine="here", progress=False)
    found = {row["id"]: row for row in kit.rows(tmp_path / "out")}
    errors = [row["error_type"] for row in found.values()]
    failed = ["step_failed"] * 2
    assert errors == ["filtered", None, *failed, "filtered", "unsupported_format", "too_short", None]
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
    words = r"Map tests\.user_specs:loudness failed: tests/user_specs\.py:\d+: ValueError: cannot bear .'unbearable'."
    for name in ("refused", "long and refused"):
        assert re.fullmatch(words, found[name]["error_message"])
    checked = raysp.verify(pipeline.sink.url, sample=2, pipeline=pipeline)
    assert (checked.differences, checked.sampled_equal) == ((), checked.sampled)
    with raysp.Labeller(pipeline.steps) as labeller:
        labelled = [labeller(rows), *(labeller(rows[number : number + 1]) for number in (0, 1, 3))]
    assert labelled[0].column_names[-7:] == [*ADDED, "pred_text", "pred_score"]
    for row in pa.concat_tables(labelled).to_pylist():
        assert {name: row[name] for name in ADDED} == {name: found[row["id"]][name] for name in ADDED}


def test_a_column_with_the_name_of_a_staged_one_is_refused():
    adding = raysp.Map(loudness, adds={"pred_frame_ids": "int8"}, reads=["text"])
    steps = [raysp.Decode(), adding, raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]
    with pytest.raises(RunError, match="a step adds the column 'pred_frame_ids', a name that an output uses"):
        raysp.Labeller(steps)
