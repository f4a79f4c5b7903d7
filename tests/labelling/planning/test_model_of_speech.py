"""The model of speech: part of the fingerprint, the same on all workers, and refused where it cannot be used."""

import hashlib
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError, SpecError
from tests.corpora import CHECKPOINT, a_pipeline, write_shard

CUT = {"windows": "speech"}
FOUND = {"outputs": [raysp.Transcript(), raysp.Speech()]}


@pytest.fixture
def pipeline(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet")
    return lambda **label: a_pipeline(f"{tmp_path}/in", tmp_path / "out", label=label)


def package() -> Path:
    """Return the folder of the package with the weights."""
    [folder] = find_spec("silero_vad").submodule_search_locations
    return Path(folder)


def digest(weights: Path) -> str:
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


def test_only_windows_that_are_cut_at_pauses_are_in_the_fingerprint(pipeline):
    even, cut = (raysp.plan(pipeline(**label)).parts for label in ({}, CUT))
    assert "steps.1.windows" not in even
    assert {key for key in {**even, **cut} if even.get(key) != cut.get(key)} == {
        "steps.1.windows",
        "steps.1.windows_by",
    }
    weights = digest(package() / "data" / "silero_vad_16k.safetensors")
    assert cut["steps.1.windows_by"] == {
        **{"type": "Speech", "name": "pred_speech", "threshold": 0.5, "weights": weights},
        **{"min_speech_seconds": 0.25, "min_silence_seconds": 0.1},
    }


def test_windows_are_cut_by_the_settings_of_the_first_speech_output(pipeline):
    outputs = [raysp.Speech("a", threshold=0.3), raysp.Speech("b", threshold=0.4)]
    assert raysp.plan(pipeline(outputs=outputs, **CUT)).parts["steps.1.windows_by"]["threshold"] == 0.3


@pytest.mark.slow
@pytest.mark.parametrize("label", [CUT, FOUND, {**FOUND, **CUT}])
def test_a_worker_with_other_weights_is_refused(pipeline, tmp_path, monkeypatch, label):
    weights = package() / "data" / "silero_vad_16k.safetensors"
    other = tmp_path / "other" / "silero_vad" / "data" / weights.name
    other.parent.mkdir(parents=True)
    (other.parent.parent / "__init__.py").touch()
    shutil.copy(weights, other)
    raw = bytearray(other.read_bytes())
    raw[-1] ^= 1
    other.write_bytes(raw)
    raysp.run(pipeline(**label), rows=1, engine="here", progress=False)
    message = rf"digest of its weights was {digest(weights)} when .* it is {digest(other)}; inst"
    with pytest.raises(raysp.RayspError, match=message):
        raysp.run(
            pipeline(**label),
            engine="here",
            progress=False,
            on_plan=lambda _: monkeypatch.syspath_prepend(str(tmp_path / "other")),
        )


@pytest.mark.parametrize("label", [CUT, FOUND])
def test_without_the_package_the_plan_says_what_to_install(pipeline, monkeypatch, label):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(CheckpointError, match=r"silero-vad.* is not installed: pip install 'raysp\[speech\]'"):
        raysp.plan(pipeline(**label))


@pytest.mark.parametrize(
    "output", [raysp.Embedding(pooling="none"), type("Own", (raysp.Transcript,), {"allows_gaps": 0})()]
)
def test_outputs_that_need_all_frames_are_refused(output):
    with pytest.raises(SpecError, match=rf"leaves out silence, and {type(output).__name__}\(.* needs all frames"):
        raysp.Label(str(CHECKPOINT), outputs=[output], windows="speech")
