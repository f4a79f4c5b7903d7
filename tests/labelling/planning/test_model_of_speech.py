"""The model of speech: part of the fingerprint, the same on all workers, and refused where it cannot be used."""

from dataclasses import replace
from importlib.util import find_spec

import pytest

import raysp
from raysp.checkpoints import packaged
from raysp.checkpoints.packaged import SPEECH
from raysp.cluster.resources import Resources
from raysp.errors import CheckpointError, SpecError
from raysp.labelling import assembly
from raysp.labelling.planning.settings import label_parts, resolve_settings
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.specs.settled import settled

CUT = {"windows": "speech"}
FOUND = {"outputs": [raysp.Transcript(), raysp.Speech()]}


def parts(**label: object) -> dict[str, object]:
    made = a_pipeline(label=label)
    return label_parts(made, settled(file_digests={SPEECH.key: "ab"}))


def test_only_windows_that_are_cut_at_pauses_are_in_the_fingerprint():
    even, cut = parts(), parts(**CUT)
    assert "steps.1.windows" not in even
    assert {key for key in {**even, **cut} if even.get(key) != cut.get(key)} == {
        "steps.1.windows",
        "steps.1.windows_by",
    }
    assert cut["steps.1.windows_by"] == {
        **{"type": "Speech", "name": "pred_speech", "threshold": 0.5, "weights": "ab"},
        **{"min_speech_seconds": 0.25, "min_silence_seconds": 0.1},
    }


@pytest.mark.parametrize("label", [CUT, FOUND])
@pytest.mark.parametrize("build", [assembly.labelling, assembly.joining, assembly.decoding])
def test_a_worker_with_other_weights_is_refused(tmp_path, label, build):
    write_shard(tmp_path / "in" / "a.parquet")
    made = a_pipeline(str(tmp_path / "in"), label=label)
    settings = resolve_settings(made, Resources(cpus=2))[0].settings
    arguments = (None,) if build is assembly.decoding else ()
    build(made, settings, *arguments)
    other = replace(settings, file_digests={SPEECH.key: "0123456789abcdef"})
    if build is assembly.decoding and label is FOUND:
        build(made, other, *arguments)  # decodes, and needs no model of speech
        return
    with pytest.raises(CheckpointError, match=r"digest of its weights was 0123456789abcdef when .* it is \w{16}; inst"):
        build(made, other, *arguments)


@pytest.mark.parametrize("label", [CUT, FOUND])
def test_without_the_package_the_plan_says_what_to_install(tmp_path, monkeypatch, label):
    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"silero-vad.* is not installed: pip install 'raysp\[speech\]'"):
        resolve_settings(a_pipeline(str(tmp_path), label=label), Resources(cpus=2))


@pytest.mark.parametrize("absent", ["speechmos", "onnxruntime"])
def test_without_a_package_of_the_model_of_opinions_the_plan_says_what_to_install(tmp_path, monkeypatch, absent):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None if name == absent else find_spec(name))
    with pytest.raises(CheckpointError, match=rf"{absent}, .*rates recordings, is not installed: pip .*'raysp\[mos\]'"):
        resolve_settings(a_pipeline(str(tmp_path), label={"outputs": [raysp.Mos()]}), Resources(cpus=2))


@pytest.mark.parametrize(
    "output", [raysp.Mos(), raysp.Embedding(pooling="none"), type("Own", (raysp.Transcript,), {"allows_gaps": 0})()]
)
def test_outputs_that_need_all_frames_are_refused(output):
    with pytest.raises(SpecError, match=rf"leaves out silence, and {type(output).__name__}\(.* needs all frames"):
        raysp.Label(str(CHECKPOINT), outputs=[output], windows="speech")
