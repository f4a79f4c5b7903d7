"""Turns of rows by frame classifiers: those of a row alone in any batch, and over windows of longer rows."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import raysp
from raysp import CheckpointError
from raysp.models import check_checkpoint, load_checkpoint
from tests.classifiers import make_frame_classifier
from tests.corpora import CHECKPOINT, a_pipeline
from tests.device.class_cases import make_checkpoint
from tests.ops.speakers.recordings import RATE, joined, write_recordings
from tests.ops.speakers.test_turning import assert_alike, labelled, steps_of

pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")
NAME = "Wav2Vec2ForAudioFrameClassification"


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> str:
    """A frame classifier with three classes of random weights."""
    make_checkpoint(NAME, folder := tmp_path_factory.mktemp("frames") / "model")
    return str(folder)


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Recordings from half a second to eight seconds, and silence."""
    made = [joined(["george", "lucas"] * count, count) for count in (1, 2, 4, 6)]
    return [*made, made[0][: RATE // 3], np.zeros(2 * RATE, np.float32)]


@pytest.fixture(scope="module")
def threshold(frames, waves) -> float:
    """A probability that half of the frames exceed."""
    return float(np.median(probabilities(frames, waves[2])))


def probabilities(folder: str, wave: np.ndarray) -> np.ndarray:
    """Return the probabilities (T, N) of a recording alone, as a shard holds it."""
    loaded = load_checkpoint(Path(folder), dtype="float32", device="cpu")
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    samples = torch.from_numpy(soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0])
    with torch.inference_mode():
        found = loaded.run(samples[None], torch.tensor([len(samples)]), hidden_states=False)
    return found.heads["frame_classes"]["logits"][0].sigmoid().numpy()


@pytest.mark.slow
@pytest.mark.parametrize("is_own", [True, False])
def test_turns_of_a_row_are_those_that_it_has_alone(frames, waves, threshold, tmp_path, is_own):
    output = raysp.Turns(checkpoint=None if is_own else frames, threshold=threshold, merge_seconds=0.1)
    fields = {"checkpoint": frames if is_own else None}
    source = write_recordings(tmp_path / "in", waves, rows_a_group=10)
    found, small = (
        labelled(tmp_path / f"out{seconds}", source, output, batch_seconds=seconds, **fields)["pred_turns"].to_pylist()
        for seconds in (60, 11)
    )
    assert_alike(found, small)
    assert max(len({turn["speaker"] for turn in one}) for one in found) > 1  # or nothing would be tested
    label_alone, rows = raysp.Labeller(steps_of(output, **fields)), pq.read_table(tmp_path / "in" / "a.parquet")
    for row in reversed(range(len(waves))):
        assert_alike(label_alone(rows.slice(row, 1))["pred_turns"].to_pylist(), [found[row]])


@pytest.mark.lengthy
def test_turns_are_those_of_the_probabilities(frames, waves, threshold, tmp_path):
    output = raysp.Turns(threshold=threshold, merge_seconds=0, least_seconds=0)
    [turns] = labelled(tmp_path / "out", write_recordings(tmp_path / "in", waves[1:2]), output, checkpoint=frames)[
        "pred_turns"
    ].to_pylist()
    scores, stride = probabilities(frames, waves[1]), check_checkpoint(Path(frames)).frame_seconds
    active = np.zeros(scores.shape, bool)
    numbers = {}
    for turn in turns:
        first, end = (round(turn[edge] / stride) for edge in ("start", "end"))
        means = scores[first:end].mean(0)
        number = numbers.setdefault(turn["speaker"], int(np.abs(means - turn["score"]).argmin()))
        assert turn["score"] == pytest.approx(means[number], abs=1e-5)
        active[first:end, number] = True
    sure = np.abs(scores - threshold) > 1e-5
    np.testing.assert_array_equal(active[sure], (scores > threshold)[sure])


@pytest.mark.slow
def test_a_classifier_with_other_frames_than_the_step(waves, tmp_path):
    other = make_frame_classifier(tmp_path / "other", "a", "b", "c")
    level = float(np.median(probabilities(other, waves[3])))
    output = raysp.Turns(checkpoint=other, threshold=level, merge_seconds=0.1)
    assert check_checkpoint(Path(other)).frame_stride != check_checkpoint(CHECKPOINT).frame_stride
    source = write_recordings(tmp_path / "in", waves)
    found = labelled(tmp_path / "out", source, output, raysp.Transcript(words=True), window_seconds=5)
    for row, wave in zip(found.to_pylist(), waves, strict=True):
        assert row["status"] == "ok"
        assert all(0 <= one["start"] < one["end"] <= len(wave) / RATE + 0.02 for one in row["pred_turns"])
        assert {one["speaker"] for one in row["pred_words"]} <= {one["speaker"] for one in row["pred_turns"]}
    assert len(found["pred_turns"].to_pylist()[3]) > 3


def test_the_transformers_backend_has_the_same_turns(frames, waves, threshold, tmp_path):
    pytest.importorskip("transformers")
    source = write_recordings(tmp_path / "in", waves[:3])
    output = raysp.Turns(threshold=threshold, merge_seconds=0.1)
    own, other = (
        labelled(tmp_path / str(backend), source, output, checkpoint=frames, backend=backend)["pred_turns"].to_pylist()
        for backend in (None, "transformers")
    )
    assert_alike(own, other)


def test_rows_that_fail_have_none(frames, tmp_path):
    source = write_recordings(tmp_path / "in", [np.zeros(RATE, np.float32), np.zeros(10, np.float32)])
    path = tmp_path / "in" / "a.parquet"
    table = pq.read_table(path).to_pylist()
    table[0]["audio"]["bytes"] = b"RIFF"
    pq.write_table(pa.Table.from_pylist(table, pq.read_schema(path)), path)
    found = labelled(tmp_path / "out", source, raysp.Turns(), checkpoint=frames)
    assert found["error_type"].to_pylist() == ["corrupt_audio", "too_short"]
    assert found["pred_turns"].to_pylist() == [None, []]


class TestSpec:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"speakers": 4}, r"3 classes of frames, and Turns\(speakers=4\); each speaker needs a class"),
            ({"speakers": (4, 6)}, r"3 classes of frames, and Turns\(speakers=\(4, 6\)\)"),
            ({"threshold": 1.0}, r"Turns\(threshold=1\), which no probability of a class of frames exceeds"),
        ],
    )
    def test_fields_that_a_frame_classifier_cannot_meet_are_refused(self, frames, fields, words):
        raysp.Turns(speakers=(1, 6), threshold=0.9).check(check_checkpoint(Path(frames)))
        with pytest.raises(CheckpointError, match=words):
            raysp.Turns(**fields).check(check_checkpoint(Path(frames)))

    @pytest.mark.parametrize("is_own", [True, False])
    def test_windows_without_shared_frames_are_refused(self, frames, waves, tmp_path, is_own):
        output = raysp.Turns(checkpoint=None if is_own else frames)
        steps = [
            raysp.Decode(),
            raysp.Label(frames if is_own else str(CHECKPOINT), outputs=[output], windows="speech"),
        ]
        source = write_recordings(tmp_path / "in", waves[:1])
        with pytest.raises(CheckpointError, match="use windows='even', or a checkpoint with x-vectors"):
            raysp.plan(a_pipeline(source, tmp_path / "out", steps=steps))
