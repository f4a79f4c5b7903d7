"""Turns of rows: those of a row alone in any batch, over windows of longer rows, with the speakers of words."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import raysp
from raysp import CheckpointError
from tests.classifiers import make_speaker_model
from tests.corpora import CHECKPOINT, label_arrays
from tests.device.class_cases import make_checkpoint
from tests.ops.speakers.recordings import RATE, joined
from tests.ops.waves import assert_alike

pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> str:
    """A speaker model of random weights."""
    return make_speaker_model(tmp_path_factory.mktemp("vectors") / "model")


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> str:
    """A frame classifier with three classes of random weights."""
    make_checkpoint("Wav2Vec2ForAudioFrameClassification", folder := tmp_path_factory.mktemp("frames") / "model")
    return str(folder)


def spoken(seconds: float, seed: int) -> np.ndarray:
    """Return a recording in which two speakers, above and below zero, speak for three seconds each."""
    voice = joined(["george"] * 60, seed, gap=0.05)[: int(seconds * RATE)]
    bias = 0.2 * (-1.0) ** (np.arange(len(voice)) // (3 * RATE))
    return (0.5 * voice + bias).astype(np.float32)


def turns_of(checkpoint: object, waves: list[np.ndarray], *outputs: object, **label: object) -> list[list[dict]]:
    given = {"window_seconds": 60, "overlap_seconds": 2, "dtype": "float32", "device": "cpu", **label}
    return [row["pred_turns"] for row in label_arrays(checkpoint, outputs, waves, **given)]


def test_turns_by_vectors_are_those_of_a_row_alone_in_any_batch(vectors):
    output = raysp.Turns(speakers=2, window_seconds=0.5, step_seconds=0.5, least_seconds=0)
    waves = [spoken(3, 1), spoken(8, 0), np.zeros(2 * RATE, np.float32)]
    together = turns_of(vectors, waves, output, window_seconds=5)
    assert [len({turn["speaker"] for turn in turns}) for turns in together] == [2, 2, 0]
    for wave, turns in zip(waves, together, strict=True):
        assert_alike(turns_of(vectors, [wave], output, window_seconds=5, batch_seconds=0.1)[0], turns)


def test_what_can_change_a_label_is_in_the_fingerprint():
    changes = [
        {"speakers": 2}, {"threshold": 0.4}, {"window_seconds": 2.0}, {"step_seconds": 0.3}, {"least_seconds": 2.0},
        {"merge_seconds": 0.1}, {"checkpoint": "other"}, {},
    ]  # fmt: skip
    digests = {"raysp[speech]": "0123", "speakers": "aa", "other": "bb"}
    found = [raysp.Turns(**{"checkpoint": "speakers", **one}).label_fields(digests) for one in changes]
    found += [raysp.Turns(checkpoint="speakers").label_fields({**digests, one: "cc"}) for one in [*digests][:2]]
    assert len({str(one) for one in found}) == len(found)


def test_checkpoints_that_cannot_give_turns_are_refused_with_a_way_out(frames, tmp_path, monkeypatch):
    speakers, other = make_speaker_model(tmp_path / "speakers"), Path(make_speaker_model(tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "wavlm"}))
    for checkpoint, fields, label, words in (
        (CHECKPOINT, {}, {}, "UniSpeechForCTC has neither x-vectors nor a speaker for each frame.*; set checkpoint"),
        (speakers, {"checkpoint": str(CHECKPOINT)}, {}, "UniSpeechForCTC has neither x-vectors"),
        (CHECKPOINT, {"checkpoint": str(other)}, {}, "'wavlm'.*raysp's own models alone.*backend='transformers'"),
        (frames, {"speakers": (4, 6)}, {}, r"3 classes of frames, and Turns\(speakers=\(4, 6\)\); each speaker needs"),
        (frames, {"threshold": 1.0}, {}, "which no probability of a class of frames exceeds"),
        (frames, {}, {"windows": "speech"}, "use windows='even', or a checkpoint with x-vectors"),
    ):
        with pytest.raises(CheckpointError, match=words):
            turns_of(checkpoint, [], raysp.Turns(**fields), **label)
    for package in ("scipy", "silero_vad"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(CheckpointError, match=r"is not installed: pip install 'raysp\[(turns|speech)\]'"):
            turns_of(speakers, [], raysp.Turns())
        monkeypatch.undo()
