"""Turns of rows: those of a row alone in any batch, over windows of longer rows, with the speakers of words."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import raysp
from raysp import CheckpointError
from tests.classifiers import make_speaker_model
from tests.corpora import CHECKPOINT, label_arrays
from tests.device.class_cases import make_checkpoint
from tests.here import install_package
from tests.ops.speakers.recordings import RATE, joined

pytest.importorskip("scipy", reason="needs pip install 'raysp[turns]'")
LOUD = '''
import torch

from raysp.backends import Capability, CheckpointSummary, ModelPass
from raysp.models.base.outputs import XVectorOutput


class Loud:
    """Vectors that say whether the samples of a window are above or below zero in the mean."""

    def describe(self, folder):
        return CheckpointSummary(
            path=folder, model_type="loud", architecture="Loud", num_parameters=1, sample_rate=16_000, min_samples=400,
            frame_stride=320, receptive_samples=400, gives=(Capability.XVECTOR,), xvector_size=2,
        )

    def load(self, folder, *, dtype, device):
        return LoudModel(self.describe(folder))


class LoudModel:
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, summary):
        self.summary = summary

    def run(self, waves_BS, num_samples_B, *, hidden_states):
        is_above = (waves_BS.double().sum(1) > 0).float()
        vectors = torch.stack([is_above, 1 - is_above], 1)
        heads = {Capability.XVECTOR: XVectorOutput(logits=vectors, embeddings=vectors)}
        return ModelPass(heads=heads, num_frames_B=(num_samples_B - 400) // 320 + 1)
'''


@pytest.fixture
def loud(tmp_path, monkeypatch) -> Path:
    """A checkpoint of a package, whose speakers are known."""
    monkeypatch.syspath_prepend(
        install_package(tmp_path / "installed", "raysp-loud", "0.1", {"loud": "raysp_loud:Loud"}, {"raysp_loud": LOUD})
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "loud").mkdir()
    (tmp_path / "loud" / "config.json").write_text(json.dumps({"model_type": "loud"}))
    save_file({"threshold": torch.tensor(0.0)}, tmp_path / "loud" / "model.safetensors")
    return tmp_path / "loud"


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


def test_turns_by_vectors_are_those_of_a_row_alone_and_of_the_whole_row(loud):
    # Steps of all are the same: the parts that windows own begin at multiples of half a second.
    output = raysp.Turns(window_seconds=0.5, step_seconds=0.5, least_seconds=0)
    waves = [spoken(4, 1), spoken(31, 0), spoken(13, 2), np.zeros(2 * RATE, np.float32)]
    whole = turns_of(loud, waves, output)
    assert whole == turns_of(loud, waves, output, batch_seconds=0.1)
    assert whole == [turns_of(loud, [wave], output)[0] for wave in waves]
    parts = turns_of(loud, waves, output, window_seconds=6)
    assert (len(whole[1]) > 3, len(parts[1]) > 3, whole[3], parts[3]) == (True, True, [], [])
    for wave, *both in zip(waves, whole, parts, strict=True):
        for time in np.arange(0.25, len(wave) / RATE, 0.5):
            at = [[one["speaker"] for one in turns if one["start"] <= time < one["end"]] for turns in both]
            assert at[0] == at[1] or [] in at  # regions of speech differ where windows begin
    [found], wave = turns_of(loud, waves[1:2], output), waves[1]
    parts = {one: [wave[int(t["start"] * RATE) : int(t["end"] * RATE)].mean() for t in found if t["speaker"] == one]
             for one in (0, 1)}  # fmt: skip
    assert {len({value > 0 for value in means}) for means in parts.values()} == {1}


def test_turns_by_classes_of_frames_are_those_of_a_row_alone(frames):
    output = raysp.Turns(threshold=0.5, merge_seconds=0.1, least_seconds=0)
    waves = [spoken(2, 1), spoken(11, 0), spoken(4, 2)]
    together = turns_of(frames, waves, output, window_seconds=5)
    assert max(len({turn["speaker"] for turn in turns}) for turns in together) > 1
    for turns, wave in zip(together, waves, strict=True):
        [alone] = turns_of(frames, [wave], output, window_seconds=5)
        assert [{**one, "score": pytest.approx(one["score"], abs=1e-5)} for one in alone] == turns


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
