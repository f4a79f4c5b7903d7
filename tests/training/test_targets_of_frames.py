"""Targets of classes of frames: lists that fit their recordings, rows that are left out, what is refused."""

import io
import json

import pyarrow as pa
import pytest
import soundfile

import raysp
from raysp import CheckpointError, ClassifyFrames, Evaluation, PlanError, SpecError, finetune
from raysp.models import check_checkpoint, load_model
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe
from tests.training.trained import error_rows_of, planned, tried

LISTS, LARGE_LISTS = pa.list_(pa.string()), pa.large_list(pa.string())
FRAMES = 24
"""Frames of the recordings, half a second each."""


def half_a_second(_: object) -> bytes:
    return wav(8000)


def a_frames_recipe(folder, checkpoint, values, kind, **fields):
    """Write a row of half a second for each value, and return a recipe over them."""
    recordings = [{"bytes": one, "path": None} for one in fields.pop("recordings", map(half_a_second, values))]
    ids = [str(row) for row in range(len(values))]
    table = pa.table({"id": ids, "audio": pa.array(recordings, AUDIO), "target": pa.array(values, kind)})
    write_shard(folder / "in" / "a.parquet", table=table)
    given = {"source": raysp.Shards(f"{folder}/in/*.parquet"), **fields}
    objective = ClassifyFrames(str(checkpoint), column="target", **given.pop("objective", {}))
    return a_recipe("", checkpoint, folder / "out", objective=objective, **given)


@pytest.mark.parametrize(
    ("values", "kind", "names", "left_out"),
    [
        ([["b"] * FRAMES, ["a", None] * (FRAMES // 2), [None] * FRAMES, None], LISTS, ("a", "b"), {"no_class": 2}),
        ([["a"] * FRAMES, ["b", ""] * (FRAMES // 2), [""] * FRAMES, []], LISTS, ("a", "b"), {"no_class": 2}),
        ([[10] * FRAMES, [9] * (FRAMES - 2), [9] * (FRAMES - 3)], pa.list_(pa.int8()), ("9", "10"), {"other": 1}),
        ([["a"] * FRAMES, ["b"] * (FRAMES + 2), ["b"] * (FRAMES + 3)], LARGE_LISTS, ("a", "b"), {"other": 1}),
        ([["a"] * FRAMES, ["ä"] * FRAMES], pa.list_(pa.binary()), ("a", "ä"), {}),
        ([["a"] * FRAMES, ["b"] * FRAMES], pa.list_(pa.dictionary(pa.int8(), pa.string())), ("a", "b"), {}),
    ],
)  # fmt: skip
def test_every_row_has_a_class_for_each_frame_or_a_reason(listener, tmp_path, values, kind, names, left_out):
    found = planned(a_frames_recipe(tmp_path, listener, values, kind))
    expected = {{"other": "other_num_frames"}.get(name, name): number for name, number in left_out.items()}
    assert found["classes"] == [*names]
    assert found["left_out"] == expected
    assert found["rows_trained"] == len(values) - sum(left_out.values())


def test_rows_with_a_class_that_is_none_of_the_given_ones_are_left_out(listener, tmp_path):
    values = [["a"] * FRAMES, ["a"] * (FRAMES - 1) + ["c"], ["b", None] * 12]
    found = planned(a_frames_recipe(tmp_path, listener, values, LISTS, objective={"classes": ["b", "a"]}))
    assert (found["left_out"], found["classes"]) == ({"unknown_class": 1}, ["b", "a"])
    assert found.facts["classes"] == "2 classes: a (47) b (12); unknown: c (1)"


def test_facts_show_how_many_frames_a_recording_has_and_a_row_with_another_number(listener, tmp_path):
    values = [["a", "b"] * 12, ["a"] * 10, ["b"] * 50]
    facts = planned(a_frames_recipe(tmp_path, listener, values, LISTS)).facts
    assert facts["objective"] == "ClassifyFrames, of the column target"
    assert facts["frames"] == "(samples - 400) // 320 + 1, at 16000 Hz"
    assert facts["rows"].endswith(
        "left out: 2 other_num_frames; a.parquet:1 has 10 classes for 8,000 samples, expected 24"
    )


@pytest.mark.parametrize("num_samples", [0, 399, 400, 719, 720, 8000, 123_456])
def test_the_number_of_frames_of_a_checkpoint_is_that_of_its_model(listener, num_samples):
    assert check_checkpoint(listener).num_frames(num_samples) == load_model(listener).num_frames(num_samples)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (["a"], pa.string(), r"holds string, expected strings or integers, a list for each row with one for each fra"),
        ([[0.5]], pa.list_(pa.float32()), r"column 'target' holds list<.*float>, expected strings or integers, a list"),
        ([[["a"]]], pa.list_(LISTS), r"column 'target' holds list<.*>, expected strings or integers, a list"),
        ([["a"] * FRAMES], LISTS, r"objective.column: 'target' holds 'a', expected at least 2 classes"),
        ([["a", "b"]], LISTS, r"1 row, left out: 1 other_num_frames; a.parquet:0 has 2 classes for 8,000 samples, exp"),
    ],
)
def test_what_holds_no_classes_of_frames_is_refused(listener, tmp_path, values, kind, message):
    with pytest.raises(PlanError, match=message):
        finetune(a_frames_recipe(tmp_path, listener, values, kind))


def test_an_architecture_without_a_head_for_frames_is_refused(headless, tmp_path):
    with pytest.raises(CheckpointError, match="UniSpeech has none of the classes UniSpeechForAudioFrameClassification"):
        finetune(a_frames_recipe(tmp_path, headless, [["a"] * FRAMES], LISTS))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"augment": [raysp.Speed()]}, "found Speed in augment; ClassifyFrames has classes of frames at the speed"),
        ({"evaluation": Evaluation(raysp.Shards("dev"))}, "ClassifyFrames has accuracy, f1, loss"),
    ],
)
def test_what_does_not_go_with_frames_is_refused(listener, tmp_path, fields, message):
    with pytest.raises(SpecError, match=message):
        a_frames_recipe(tmp_path, listener, [["a"] * FRAMES], LISTS, **fields)


def test_a_row_whose_decoded_recording_has_other_frames_than_its_header_fails_alone(listener, tmp_path):
    samples, rate = soundfile.read(io.BytesIO(wav(8000)))
    file = io.BytesIO()
    soundfile.write(file, samples[:4000], rate, format="FLAC")
    flac = bytearray(file.getvalue())
    assert int.from_bytes(flac[22:26], "big") == 4000
    flac[22:26] = (8000).to_bytes(4, "big")
    values, recordings = [["a", "b"] * 11, ["b"] * FRAMES], [wav(8000), bytes(flac)]  # the first lacks two, as it may
    result = finetune(a_frames_recipe(tmp_path, listener, values, LISTS, recordings=recordings))
    assert (result.rows, result.is_done, [*result.errors]) == (2, True, ["other_num_frames"])
    [row] = error_rows_of(tmp_path / "out")
    assert (row["row"], row["error_message"]) == (1, "24 labels and 12 frames")


def test_a_try_out_shows_short_runs_of_classes(listener, tmp_path):
    values = [["speech"] * 12 + [None] * 12, ["a", "a", None, "b, c"] * 6, ['"x"', "ä"] * 12]
    texts = tried(a_frames_recipe(tmp_path, listener, values, LISTS), 1)["texts"]
    shown = [reference for reference, _ in texts]
    assert '[["speech", 12], [null, 12]]' in shown
    runs = [json.loads(one) for one in shown]
    found = [[name for name, length in one for _ in range(length)] for one in runs]
    assert sorted(map(str, found)) == sorted(map(str, values))
