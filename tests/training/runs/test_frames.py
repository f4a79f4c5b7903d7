"""Whole trainings of classes of frames: real recordings, evaluation, try-outs, labels by the checkpoint."""

import io
import json
import operator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import transformers

import raysp
from raysp import Batching, ClassifyFrames, Evaluation, Schedule, finetune
from raysp.models import load_checkpoint
from tests.corpora import DEMO, write_shard
from tests.pages import Page
from tests.recipes import a_recipe, words_table
from tests.training.trained import evaluations_of, steps_of, tried

pytestmark = pytest.mark.slow

NUM_DIGITS = 40


def frames_of(runs: str) -> list[str | None]:
    """Return the class of each frame, from runs such as `[["speech", 12], [null, 3]]`."""
    return [name for name, length in json.loads(runs) for _ in range(length)]


def loud_frames(recording: bytes) -> list[str]:
    """Return "loud" or "quiet" for each frame of 20 ms of a recording at 8 kHz."""
    samples, rate = soundfile.read(io.BytesIO(recording), dtype="float32")
    assert rate == 8000
    windows = np.lib.stride_tricks.sliding_window_view(samples, 200)[::160]
    levels = np.sqrt((windows**2).mean(-1))
    return ["loud" if level > 0.2 * levels.max() else "quiet" for level in levels]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> str:
    """Real digits with a class for each frame."""
    table = pq.read_table(min((Path(DEMO) / "audio").glob("*.parquet"))).slice(0, NUM_DIGITS)
    frames = [loud_frames(one["bytes"]) for one in table.column("audio").to_pylist()]
    folder = tmp_path_factory.mktemp("digits")
    write_shard(folder / "a.parquet", table=table.append_column("frames", pa.array(frames)), row_group_size=20)
    return f"{folder}/*.parquet"


@pytest.fixture(scope="module")
def trained(digits, listener, tmp_path_factory):
    """A classifier of frames that was trained on real digits, with its result."""
    sink = tmp_path_factory.mktemp("trained") / "out"
    evaluation = Evaluation(raysp.Shards(digits), every=40, best="accuracy", by=["speaker_id"])
    recipe = a_recipe(
        digits,
        listener,
        sink,
        source=raysp.Shards(digits),
        objective=ClassifyFrames(listener, column="frames", masks={"mask_time_prob": 0.0}),
        schedule=Schedule(steps=40, learning_rate=3e-3, head_rate=1.0),
        batching=Batching(seconds=8, micro_batches=2),
        evaluation=evaluation,
    )
    return sink, finetune(recipe)


@pytest.mark.drivers
def test_frames_of_real_digits_are_learnt(trained, digits):
    sink, result = trained
    losses = [step["loss"] for step in steps_of(sink)]
    assert result.left_out == {}
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    frames = [name for row in pq.read_table(Path(digits).parent).column("frames").to_pylist() for name in row]
    assert result.best > 0.05 + max(frames.count("loud"), frames.count("quiet")) / len(frames)
    before, evaluated = evaluations_of(sink).values()
    scores, metrics = evaluated["scores"], evaluated["scores"]["metrics"]
    assert before["scores"]["metrics"]["accuracy"]["value"] < metrics["accuracy"]["value"] == result.best
    assert scores["counts"]["frames"] == len(frames)
    assert scores["rows"] == NUM_DIGITS
    assert metrics.keys() == {"accuracy", "f1"}
    assert evaluated["loss"] > 0
    assert {one["name"] for one in evaluated["classes"]} == {"loud", "quiet"}
    worst = evaluated["worst"][0]
    reference, hypothesis = frames_of(worst["reference"]), frames_of(worst["hypothesis"])
    assert worst["errors"] == sum(map(operator.ne, reference, hypothesis)) > 0
    page = Page((sink / ".raysp" / "report.html").read_text())
    assert page.texts[page.texts.index("Classes") + 2] == "frames"
    assert f"{worst['errors']} errors, score {worst['score']:.3f}" in page.texts


@pytest.mark.drivers
def test_the_checkpoint_names_the_classes_in_both_libraries(trained):
    sink, _ = trained
    theirs, info = transformers.Wav2Vec2ForAudioFrameClassification.from_pretrained(sink, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.id2label == {0: "loud", 1: "quiet"}
    assert load_checkpoint(sink).summary.labels == ("loud", "quiet")
    assert "- audio-frame-classification\n" in (sink / "README.md").read_text()
    figures = json.loads((sink / "metrics.json").read_text())
    assert figures["best"]["metric"] == "accuracy"


@pytest.mark.drivers
def test_a_checkpoint_of_frames_labels_segments(trained, tmp_path):
    label = raysp.Label(str(trained[0]), outputs=[raysp.Segments()])
    write_shard(tmp_path / "in" / "a.parquet", table=words_table(4))
    sink = raysp.Parquet(str(tmp_path / "labels"))
    raysp.run(
        raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=[raysp.Decode(), label], sink=sink),
        engine="here",
        progress=False,
    )
    rows = pq.read_table(tmp_path / "labels" / "a.parquet").column("pred_segments").to_pylist()
    assert {one["label"] for row in rows for one in row} <= {"loud", "quiet"}


@pytest.mark.drivers
def test_a_head_with_the_same_classes_is_trained_further(trained, digits, tmp_path):
    recipe = a_recipe(
        digits,
        trained[0],
        tmp_path / "out",
        source=raysp.Shards(digits),
        objective=ClassifyFrames(str(trained[0]), column="frames"),
        schedule=Schedule(steps=1, learning_rate=1e-6),
    )
    first, last = finetune(recipe).loss, steps_of(trained[0])[-1]["loss"]
    assert first == pytest.approx(last, abs=0.1)


def test_frames_of_another_architecture_are_learnt(digits, shared, tmp_path):
    checkpoint = shared / "checkpoints" / "w2vbert-digits-ctc"
    recipe = a_recipe(
        digits,
        checkpoint,
        tmp_path / "out",
        source=raysp.Shards(digits),
        objective=ClassifyFrames(str(checkpoint), column="frames", freeze="base"),
        schedule=Schedule(steps=8, learning_rate=1e-2, head_rate=1.0),
        batching=Batching(seconds=6, micro_batches=3, window_seconds=10),
    )
    result = finetune(recipe)
    losses = [step["loss"] for step in steps_of(tmp_path / "out")]
    assert result.left_out == {}
    assert losses[-1] < 0.9 * losses[0]
    assert load_checkpoint(tmp_path / "out").summary.architecture == "Wav2Vec2BertForAudioFrameClassification"


def test_a_try_out_shows_runs_of_classes(words, listener, tmp_path):
    recipe = a_recipe(words, Path(), tmp_path / "out", objective=ClassifyFrames(listener, column="frames"))
    texts = tried(recipe, 1)["texts"]
    assert len(texts) == 5
    for reference, found in texts:
        assert {*frames_of(reference)} <= {"low", "high", None}
        assert {*frames_of(found)} <= {"low", "high"}
        assert len(frames_of(reference)) == len(frames_of(found))


def test_an_evaluation_counts_rows_that_do_not_fit_and_classes_that_are_unknown(words, listener, tmp_path):
    table = words_table(4)
    frames = table.column("frames").to_pylist()
    frames[0] = frames[0][:-3]
    frames[1] = ["other" for _ in frames[1]]
    frames[2] = [None for _ in frames[2]]
    place = table.column_names.index("frames")
    write_shard(tmp_path / "dev" / "a.parquet", table=table.set_column(place, "frames", pa.array(frames)))
    evaluation = Evaluation(raysp.Shards(f"{tmp_path}/dev/*.parquet"), every=1, best="f1")
    seen = []
    recipe = a_recipe(
        words,
        Path(),
        tmp_path / "out",
        objective=ClassifyFrames(listener, column="frames"),
        schedule=Schedule(steps=1, learning_rate=1e-3),
        evaluation=evaluation,
    )
    finetune(recipe, on_progress=lambda progress: seen.append(progress.evaluated))
    [(_, evaluated)] = seen
    scores = evaluated.comparison.scores
    assert (scores.rows, evaluated.failed) == (3, 1)
    assert scores.counts["frames"] == len(frames[1]) + sum(name is not None for name in frames[3])
    assert scores.counts["correct"] <= sum(name is not None for name in frames[3])
    assert {one.name: one.f1 for one in evaluated.comparison.classes}["other"] == 0
