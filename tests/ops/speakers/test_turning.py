"""Turns of rows: those of a row alone in any batch, over windows of longer rows, with the speakers of words."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.ops.speakers import turning
from raysp.specs.outputs import turns as turns_spec
from tests.classifiers import make_speaker_model
from tests.corpora import CHECKPOINT, a_pipeline
from tests.device.class_cases import make_checkpoint
from tests.ops.speakers.recordings import RATE, joined, write_recordings
from tests.soaked import soaked

THRESHOLD = 0.02
"""Vectors of random weights are near each other."""
pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")


@pytest.fixture(scope="module")
def speakers(tmp_path_factory) -> str:
    """A checkpoint with x-vectors of random weights."""
    return make_speaker_model(tmp_path_factory.mktemp("speakers"))


@pytest.fixture(autouse=True)
def cheap_changes(monkeypatch):
    """Changes of speakers that differ as little as vectors of random weights do."""
    monkeypatch.setattr(turns_spec, "CHANGE_SECONDS", 1e-4)


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Recordings of two or three speakers from half a second to ten seconds, and silence."""
    names = ["george", "lucas", "nicolas", "jackson"]
    orders = [[0, 0, 1, 1], [2, 3, 3, 2, 2], [0], [0, 1, 2] * 4, [3] * 3 + [1] * 3 + [3] * 3]
    made = [joined([names[one] for one in order], seed) for seed, order in enumerate(orders)]
    return [*made, np.zeros(2 * RATE, np.float32)]


def labelled(folder: Path, source: str, *outputs, **label) -> pa.Table:
    raysp.run(a_pipeline(source, folder, steps=steps_of(*outputs, **label)), engine="here", progress=False)
    return pq.read_table(folder / "a.parquet")


def steps_of(*outputs, checkpoint: str | None = None, **label) -> list[object]:
    given = {"outputs": list(outputs), "window_seconds": 5, "overlap_seconds": 2, **label}
    return [raysp.Decode(), raysp.Label(checkpoint or str(CHECKPOINT), **given)]


def assert_alike(found, expected):
    """Compare turns of rows: speakers and times are equal, scores agree to 1e-5 as all numbers do."""
    assert len(found) == len(expected)
    for turns, others in zip(found, expected, strict=True):
        assert (turns is None) == (others is None)
        for one, other in zip(turns or (), others or (), strict=True):
            assert {**one, "score": None} == {**other, "score": None}
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)


class Loud:
    """Stands in for the vectors of windows: whether the loudest part of a window is above or below zero."""

    def __call__(self, wave, firsts, num_samples):
        middles = torch.stack([wave[one : one + num_samples].double().sum() for one in firsts])
        return torch.stack([(middles > 0).double(), (middles <= 0).double()], 1).float()


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> str:
    """A frame classifier with three classes of random weights."""
    make_checkpoint("Wav2Vec2ForAudioFrameClassification", folder := tmp_path_factory.mktemp("frames") / "model")
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["x-vectors", "classes of frames", *soaked(["x-vectors of speech"])])
def test_turns_of_a_row_are_those_that_it_has_alone(speakers, frames, waves, tmp_path, kind):
    if kind == "classes of frames":
        output, fields = raysp.Turns(threshold=0.5, merge_seconds=0.1), {"checkpoint": frames}
    else:
        output = raysp.Turns(checkpoint=speakers, threshold=THRESHOLD, least_seconds=0.5)
        fields = {"windows": "speech" if "speech" in kind else "even"}
    source = write_recordings(tmp_path / "in", waves, rows_a_group=10)
    found, small = (
        labelled(tmp_path / str(seconds), source, output, batch_seconds=seconds, **fields)["pred_turns"].to_pylist()
        for seconds in (60, 11)
    )
    assert_alike(found, small)
    assert max(len({turn["speaker"] for turn in one or ()}) for one in found) > 1  # or nothing would be tested
    label_alone, rows = raysp.Labeller(steps_of(output, **fields)), pq.read_table(tmp_path / "in" / "a.parquet")
    for row in reversed(range(len(waves))):
        assert_alike(label_alone(rows.slice(row, 1)).column("pred_turns").to_pylist(), [found[row]])


@pytest.mark.slow
def test_windows_of_a_longer_row_have_the_turns_of_the_whole(speakers, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    voice = joined(["george"] * 60, 3, gap=0.05)
    bias = np.repeat(draw.choice([-0.2, 0.2], 1 + len(voice) // (3 * RATE)), 3 * RATE)[: len(voice)]
    source = write_recordings(tmp_path / "in", [(0.5 * voice + bias).astype(np.float32)])
    monkeypatch.setattr(turning.WindowVectors, "__call__", Loud.__call__)
    # Steps of both are the same: the parts that windows own begin at multiples of half a second.
    output = raysp.Turns(checkpoint=speakers, window_seconds=0.5, step_seconds=0.5, least_seconds=0)
    tables = [
        labelled(tmp_path / name, source, output, window_seconds=seconds, overlap_seconds=2)
        for name, seconds in (("whole", 60), ("parts", 6))
    ]
    whole, parts = (one["pred_turns"].to_pylist()[0] for one in tables)
    assert len(whole) > 3
    assert len(parts) > 3
    for time in np.arange(0.25, len(voice) / RATE, 0.5):
        speakers_at = [
            [one["speaker"] for one in turns if one["start"] <= time < one["end"]] for turns in (whole, parts)
        ]
        assert speakers_at[0] == speakers_at[1] or [] in speakers_at  # regions of speech differ where windows begin


def test_what_can_change_a_label_is_in_the_fingerprint(speakers):
    changes = [
        {"speakers": 2}, {"threshold": 0.4}, {"window_seconds": 2.0}, {"step_seconds": 0.3}, {"least_seconds": 2.0},
        {"merge_seconds": 0.1}, {"checkpoint": "other"}, {},
    ]  # fmt: skip
    digests = {"raysp[speech]": "0123", speakers: "aa", "other": "bb"}
    found = [raysp.Turns(**{"checkpoint": speakers, **one}).label_fields(digests) for one in changes]
    found += [raysp.Turns(checkpoint=speakers).label_fields({**digests, one: "cc"}) for one in [*digests][:2]]
    assert len({str(one) for one in found}) == len(found)


def test_checkpoints_that_cannot_give_turns_are_refused_with_a_way_out(speakers, frames, tmp_path, monkeypatch):
    other = Path(make_speaker_model(tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "wavlm"}))
    for checkpoint, fields, label, words in (
        (None, {}, {}, "UniSpeechForCTC has neither x-vectors nor a speaker for each frame.*; set checkpoint"),
        (speakers, {"checkpoint": str(CHECKPOINT)}, {}, "UniSpeechForCTC has neither x-vectors"),
        (None, {"checkpoint": str(other)}, {}, "'wavlm'.*raysp's own models alone.*Label.*backend='transformers'"),
        (frames, {"speakers": (4, 6)}, {}, r"3 classes of frames, and Turns\(speakers=\(4, 6\)\); each speaker needs"),
        (frames, {"threshold": 1.0}, {}, "which no probability of a class of frames exceeds"),
        (frames, {}, {"windows": "speech"}, "use windows='even', or a checkpoint with x-vectors"),
    ):
        with pytest.raises(CheckpointError, match=words):
            raysp.Labeller(steps_of(raysp.Turns(**fields), checkpoint=checkpoint, **label))
    for package in ("scipy", "silero_vad"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(CheckpointError, match=r"is not installed: pip install 'raysp\[(turns|speech)\]'"):
            raysp.Labeller(steps_of(raysp.Turns(), checkpoint=speakers))
        monkeypatch.undo()
