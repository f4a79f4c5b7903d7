"""Backend of a `Label` step that names none: chosen once, shown, recorded, and the same for the whole sink."""

import json

import pytest

import raysp
from raysp import ChangedError, CheckpointError, PlanError
from tests import kit
from tests.backends.runs import pipeline
from tests.backends.theirs import tiny_waveform_model
from tests.here import run_without_ray, without_packages
from tests.models.oracles import transformers

VERSION = f"transformers {transformers.__version__}"


def left_open(folder, checkpoint, **label) -> raysp.Pipeline:
    return pipeline(folder, checkpoint, **{"backend": None, **label})


def test_a_model_of_raysp_is_taken_first_and_leaves_the_fingerprint_as_it_was(corpus, tiny):
    plans = [raysp.plan(left_open(corpus, tiny, backend=backend)) for backend in (None, "torch")]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert plans[0].pipeline == plans[1].pipeline
    assert "steps.1.backend" not in plans[0].parts
    assert plans[0].notes == plans[1].notes
    assert " by " not in plans[0].facts["checkpoint"]


def test_transformers_takes_what_raysp_does_not_read_and_the_plan_says_so(corpus, whisper):
    plans = [raysp.plan(left_open(corpus, whisper, backend=backend)) for backend in (None, "transformers")]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert plans[0].facts["checkpoint"].endswith(f"by {VERSION}")
    assert plans[0].notes[0] == f"{VERSION} runs the checkpoint: raysp has no model of type 'whisper'"
    facts = dict(line.strip().split("  ", 1) for line in kit.run(["inspect", whisper]).out.splitlines()[1:])
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["architecture"] == "WhisperForConditionalGeneration (whisper)"
    assert (facts["runs by"], facts["not by raysp"]) == (VERSION, "raysp has no model of type 'whisper'")
    assert "at most 2 s" in facts["rate"]
    assert json.loads(kit.run(["inspect", whisper, "--json"]).out)["backend"] == "transformers"
    refused = kit.run(["inspect", whisper, "--backend", "onnx"])
    assert refused.code == 2
    assert refused.err == "raysp: --backend: found 'onnx', expected one of torch, transformers, ctranslate2, vllm\n"


@pytest.mark.slow
def test_a_sink_keeps_the_backend_of_its_first_plan(corpus, whisper, tiny, monkeypatch):
    run_without_ray(monkeypatch)
    made = left_open(corpus, whisper)
    assert raysp.run(made).rows == 4
    record = json.loads((corpus / "out" / ".raysp" / "run.json").read_text())
    assert record["pipeline"]["steps"][1]["backend"] == record["parts"]["steps.1.backend"] == "transformers"
    assert raysp.plan(made).rows_todo == 0
    assert raysp.verify(made.sink.url, sample=4, pipeline=made).differences == ()
    with pytest.raises(ChangedError, match=r"the files of `steps.1.checkpoint` changed"):
        raysp.plan(left_open(corpus, tiny))
    without_packages(monkeypatch, "transformers")
    with pytest.raises(PlanError, match=r"made with backend='transformers', and transformers is not .*pip install"):
        raysp.plan(made)


def test_a_sink_goes_on_with_the_backend_that_labelled_it(corpus, tiny, whisper, monkeypatch):
    run_without_ray(monkeypatch)
    assert raysp.run(left_open(corpus, tiny)).rows == 4
    with pytest.raises(ChangedError, match=r"steps.1.backend` was unset, now 'transformers'"):
        raysp.plan(left_open(corpus, whisper))
    (corpus / "out").rename(corpus / "of raysp")
    assert raysp.run(left_open(corpus, tiny, backend="transformers")).rows == 4
    again = raysp.plan(left_open(corpus, tiny))
    assert (again.settings.checkpoint.backend, again.rows_todo) == ("transformers", 0)


def test_a_checkpoint_that_neither_reads_has_one_message_with_both_reasons(corpus, monkeypatch):
    folder = tiny_waveform_model(corpus / "model", "WavLMForCTC", add_adapter=True)
    of_hub, later = r"transformers [\d.]+", "if it is a speech model, transformers may read it, and is not installe"
    for model_type, installed, words in (
        ("wavlm", True, rf"^raysp has no model of type 'wavlm'; {of_hub} refuses it too: .*add_adapter changes"),
        ("vibevoice_asr", True, r"refuses it too: .* adds random noise .*; use another recogniser$"),
        ("loudness", True, rf"expected one of hubert, .* {of_hub} does not read; .* \(entry points raysp.models\)$"),
        ("loudness", False, later),
        ("moonshine", False, r"transformers reads it, and is not installed: pip install 'raysp\[tra"),
    ):
        if not installed:
            without_packages(monkeypatch, "transformers")
        if model_type != "wavlm":
            (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(CheckpointError, match=words):
            raysp.plan(left_open(corpus, folder))
