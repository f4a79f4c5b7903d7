"""Long rows: windows through decoding, model and join give the label of the whole row at once."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

import raysp
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, label_arrays, wav
from tests.here import install_package
from tests.ops.waves import assert_alike

RATE = 16_000
LM = str(Path(__file__).parents[1] / "golden" / "digits.arpa")
OUTPUTS = (
    raysp.Transcript(words=True, chars=True),
    raysp.Transcript("searched", beams=4, nbest=2, words=True, lm=LM, hot_words={"NINE": 1.0}),
    raysp.Align("text", chars=True),
    raysp.Align("text", name="wild", unknown="wildcard"),
    raysp.Align("text", name="part", wildcard=True),
)
TEXTS = ("ONE two", None, "Nine, nine - X!", "one " * 100)
LENGTHS = (40_000, 3_000, 200, 81_234, 16_000, 16_079, 16_080, 15_999, 60_000)
"""Of rows in samples; a window of a second, and the samples by which a row has another frame."""
SCORES = {"rel": 1e-6, "abs": 5e-4, "only": "score"}
"""Tolerance of scores, whose sums may be added up in any order; all else is equal."""
NEARSIGHTED = '''
import torch
from safetensors.torch import load_file

from raysp.backends import Capability, CheckpointSummary, ModelPass
from raysp.models.base.outputs import CausalLMOutput

NEEDED, STRIDE = 400, 320


class Nearsighted:
    """A model whose frame sees its own samples and one frame to either side, and no more."""

    def describe(self, folder):
        return CheckpointSummary(
            path=folder, model_type="nearsighted", architecture="Nearsighted", num_parameters=1, sample_rate=16_000,
            vocab_size=20, min_samples=NEEDED, frame_stride=STRIDE, receptive_samples=NEEDED, gives=(Capability.CTC,),
        )

    def load(self, folder, *, dtype, device):
        return NearsightedModel(self.describe(folder), load_file(folder / "model.safetensors")["mix"])


class NearsightedModel:
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, summary, mix):
        self.summary, self.mix = summary, mix

    def run(self, waves_BS, num_samples_B, *, hidden_states):
        frames = waves_BS.unfold(1, NEEDED, STRIDE)  # (B, T, NEEDED)
        num_frames_B = (num_samples_B - NEEDED) // STRIDE + 1
        is_padding = torch.arange(frames.shape[1]) >= num_frames_B[:, None]
        frames = frames.masked_fill(is_padding[:, :, None], 0.0)
        around = torch.nn.functional.pad(frames, (0, 0, 1, 1))
        logits = torch.cat([around[:, :-2], frames, around[:, 2:]], -1) @ self.mix
        output = CausalLMOutput(logits=torch.round(logits * 2**12) / 2**12)  # sums in any order
        return ModelPass(heads={Capability.CTC: output}, num_frames_B=num_frames_B)
'''


@pytest.fixture(scope="module")
def nearsighted(tmp_path_factory) -> Iterator[Path]:
    """A checkpoint of a package with the model above, and the letters of the digits."""
    place = tmp_path_factory.mktemp("nearsighted")
    models, code = {"nearsighted": "raysp_nearsighted:Nearsighted"}, {"raysp_nearsighted": NEARSIGHTED}
    folder = place / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "nearsighted"}))
    for name in ("vocab.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (CHECKPOINT / name).is_file():
            shutil.copy(CHECKPOINT / name, folder)
    mix = 0.5 * torch.randn(3 * 400, 20, generator=torch.Generator().manual_seed(0))
    save_file({"mix": mix}, folder / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patch.syspath_prepend(install_package(place / "installed", "raysp-nearsighted", "0.1", models, code))
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize(("window", "share", "batch_seconds"), [(1, 0.25, 2), (0.31, 0.5, 0.1)])
def test_labels_of_windows_are_those_of_the_whole_at_once(nearsighted, window, share, batch_seconds):
    waves = [np.random.default_rng(one).uniform(-0.5, 0.5, one).astype(np.float32) for one in LENGTHS]
    texts = {"text": [TEXTS[place % len(TEXTS)] for place in range(len(LENGTHS))]}
    whole = label_arrays(nearsighted, OUTPUTS, waves, texts, window_seconds=100, overlap_seconds=0)
    assert [bool(row["pred_words"]) for row in whole] == [place != 2 for place in range(len(LENGTHS))]
    options = {"window_seconds": window, "overlap_seconds": window * share, "batch_seconds": batch_seconds}
    assert_alike(label_arrays(nearsighted, OUTPUTS, waves, texts, **options), whole, **SCORES)
    [alone] = label_arrays(nearsighted, OUTPUTS, waves[:1], {"text": TEXTS[:1]}, **options)
    assert_alike(alone, whole[0], **SCORES)


def flac(num_samples: int) -> bytes:
    return kit.sound(np.random.default_rng(0).uniform(-0.5, 0.5, num_samples), form="FLAC")


def flac_of_unknown_length(num_samples: int) -> bytes:
    """Make a FLAC file as a pipe writes it: its length is unknown, and silence takes almost no bytes."""
    raw = bytearray(kit.sound(np.zeros(num_samples), form="FLAC"))
    raw[21] &= 0xF0
    raw[22:26] = bytes(4)
    return bytes(raw)


@pytest.mark.parametrize(
    ("recording", "steps", "outcome"),
    [
        ("broken", [raysp.Decode()], ("error", "corrupt_audio", None)),
        ("hidden", [raysp.Decode(max_seconds=5)], ("skipped", "too_long", None)),
        ("hidden", [raysp.Decode(), raysp.Keep(max_seconds=5)], ("skipped", "filtered", 5.625)),
    ],
)
def test_a_row_that_is_refused_at_its_end_has_no_outputs(nearsighted, recording, steps, outcome):
    broken = bytearray(flac(150_000))
    broken[len(broken) // 2 : len(broken) // 2 + 400] = b"\x55" * 400
    odd = {"broken": bytes(broken), "hidden": flac_of_unknown_length(90_000)}[recording]
    label = raysp.Label(str(nearsighted), outputs=OUTPUTS[:1], window_seconds=1, overlap_seconds=0.25)
    with raysp.Labeller([*steps, label], id=None) as labeller:
        first, found, last, *alone = (
            row
            for recordings in ([wav(40_000, seed=1), odd, wav(3_000, seed=2)], [wav(40_000, seed=1)])
            for row in labeller(
                pa.table({"audio": pa.array([{"bytes": one, "path": None} for one in recordings], AUDIO)})
            ).to_pylist()
        )
    assert_alike([first], alone, **SCORES)
    assert last["status"] == "ok"
    assert tuple(found[name] for name in ("status", "error_type", "seconds")) == outcome
    assert {found[name] for name in ("pred_text", "pred_score", "pred_words")} == {None}
