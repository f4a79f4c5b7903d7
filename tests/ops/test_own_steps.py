"""Steps of a user: columns that they add, rows that they leave out or fail for, and results of another shape."""

import io
import re

import numpy as np
import pyarrow as pa
import pytest
import soundfile

import raysp
from raysp import RunError, SpecError
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, rows_table, wav, write_shard
from tests.user_specs import Counted, Short, Spoken, called, decibels, loudness

ADDED = ("words", "loudness", "duration", "decibels", "called")
NUMBERS = {"list": list, "numpy": np.array, "arrow": pa.array, "tuple": tuple}
RESULTS: dict[str, object] = {}


def given(rows: pa.Table) -> object:
    """Return the result that a test gave."""
    return RESULTS["given"]


def added(result: object, number: int = 5) -> pa.Table:
    """Return the columns that a step adds to rows by a function with this result."""
    RESULTS["given"] = result
    adding = raysp.Map(given, adds={"n": "float32", "s": "list<string>"}, reads=["text"])
    steps = [adding, raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]
    with raysp.Labeller(steps) as labeller:
        return labeller(rows_table(number, audio=wav(800)))


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


ROWS = {
    "plain": (wav(9000, seed=1), "one two"),
    "long": (wav(200_000, seed=2), "one"),
    "long and refused": (wav(200_000, seed=3), "unbearable"),
    "refused": (wav(9000, seed=4), "unbearable"),
    "left out": (wav(9000), "left out"),
    "broken": (b"not a recording", "one"),
    "too short": (wav(200), "one"),
    "other": (wav(8000, rate=8000, seed=5), ""),
    "too fast": (wav(800), "one two three"),
}
"""Recordings and texts by ids."""


@pytest.mark.slow
def test_values_are_those_of_whole_recordings_in_a_run_and_alone_and_null_without_a_label(tmp_path):
    audio = pa.array([{"bytes": one, "path": None} for one, _ in ROWS.values()], AUDIO)
    rows = pa.table({"id": [*ROWS], "audio": audio, "text": [text for _, text in ROWS.values()]})
    write_shard(tmp_path / "in" / "a.parquet", table=rows)
    steps = [  # each reads what others add
        raysp.Keep(where=[("text", "!=", "left out")]),
        Counted(),
        raysp.Decode(),
        Spoken(min_words=0, most_per_second=10),
        raysp.Map(loudness, adds={"loudness": "float32", "duration": "float64"}, reads=["audio", "text"]),
        raysp.Map(decibels, adds={"decibels": "float32"}, reads=["loudness", "words"]),
        raysp.Keep(where=[("words", "<", 3), ("decibels", ">", -99.0)]),
        raysp.Map(called, adds={"called": "bool"}, reads=["decibels"]),
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], window_seconds=6, overlap_seconds=2),
    ]
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=steps, max_error_rate=1)
    raysp.run(pipeline, engine="here", progress=False)
    found = {row["id"]: row for row in kit.rows(tmp_path / "out")}
    failed = ["step_failed"] * 2
    errors = [None, None, *failed, "filtered", "unsupported_format", "too_short", None, "filtered"]
    assert [row["error_type"] for row in found.values()] == errors
    for name, row in found.items():
        recording, text = ROWS[name]
        if row["status"] != "ok":
            assert [row[column] for column in (*ADDED, "pred_text")] in ([None] * 6, [None] * 5 + [""])
            continue
        samples, rate = soundfile.read(io.BytesIO(recording))
        assert (row["words"], row["called"]) == (len(text.split()), True)
        assert row["duration"] == row["seconds"] == len(samples) / rate
        assert row["decibels"] == pytest.approx(20 * np.log10(row["loudness"]), rel=1e-4)
        if rate == 16_000:
            assert row["loudness"] == pytest.approx(np.sqrt(np.mean(samples**2)), rel=1e-4)
    words = r"Map tests\.user_specs:loudness failed: tests/user_specs\.py:\d+: ValueError: cannot bear .'unbearable'."
    assert all(re.fullmatch(words, found[name]["error_message"]) for name in ("refused", "long and refused"))
    checked = raysp.verify(pipeline.sink.url, sample=2, pipeline=pipeline)
    assert (checked.differences, checked.sampled_equal) == ((), checked.sampled)
    with raysp.Labeller(pipeline.steps) as labeller:
        alone = labeller(rows.slice(1, 1)).to_pylist()[0]
    assert {name: alone[name] for name in ADDED} == {name: found["long"][name] for name in ADDED}


def test_steps_that_cannot_work_so_are_refused():
    adding = raysp.Map(loudness, adds={"pred_frame_ids": "int8"}, reads=["text"])
    with pytest.raises(RunError, match="a step adds the column 'pred_frame_ids', a name that an output uses"):
        raysp.Labeller([raysp.Decode(), adding, a_pipeline().label])
    with pytest.raises(SpecError, match="Spoken by seconds needs decoded audio: move it after Decode"):
        a_pipeline(steps=[Spoken(most_per_second=1), raysp.Decode(), a_pipeline().label])
    with pytest.raises(SpecError, match=r"steps\[1\] Spoken: it cannot use the audio column 'audio'"):
        a_pipeline(keep=[Spoken(column="audio")])
