"""Backend of a `Label` step that names none: chosen once, shown, recorded, and the same for the whole sink."""

import json
import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import raysp
from raysp import ChangedError, CheckpointError, PlanError
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import tiny_waveform_model
from tests.here import run_without_ray, without_packages
from tests.models.oracles import transformers

VERSION = f"transformers {transformers.__version__}"
OF_TRANSFORMERS = (
    "audio-spectrogram-transformer", "data2vec-audio", "moonshine", "sew", "speech_to_text", "unispeech-sat",
    "wav2vec2-conformer", "wavlm", "whisper",
)  # fmt: skip
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]


def left_open(folder, checkpoint, **label) -> raysp.Pipeline:
    return pipeline(folder, checkpoint, **{"backend": None, **label})


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


def test_a_model_of_raysp_is_taken_first_and_leaves_the_fingerprint_as_it_was(corpus, tiny):
    plans = [raysp.plan(left_open(corpus, tiny, backend=backend)) for backend in (None, "torch")]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert plans[0].pipeline == plans[1].pipeline
    assert "steps.1.backend" not in plans[0].parts
    assert plans[0].notes == plans[1].notes
    assert " by " not in plans[0].facts["checkpoint"]


def test_transformers_takes_what_raysp_does_not_read_and_the_plan_says_so(corpus, whisper, raysp_command):
    plans = [raysp.plan(left_open(corpus, whisper, backend=backend)) for backend in (None, "transformers")]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert plans[0].facts["checkpoint"].endswith(f"by {VERSION}")
    assert plans[0].notes[0] == f"{VERSION} runs the checkpoint: raysp has no model of type 'whisper'"
    ran = raysp_command("inspect", whisper)
    assert (ran.code, ran.err) == (0, "")
    facts = dict(line.strip().split("  ", 1) for line in ran.out.splitlines()[1:])
    assert facts["runs by"].strip() == VERSION
    assert facts["not by raysp"].strip() == "raysp has no model of type 'whisper'"
    assert json.loads(raysp_command("inspect", whisper, "--json").out)["backend"] == "transformers"


def test_each_of_several_checkpoints_has_the_library_that_runs_it(corpus, whisper, tiny):
    made = left_open(corpus, tiny, outputs=[raysp.Transcript("first")])
    made = replace(
        made, steps=[*made.steps, replace(made.steps[1], checkpoint=str(whisper), outputs=[raysp.Transcript()])]
    )
    assert raysp.plan(made).notes[0] == f"{VERSION} runs {whisper}: raysp has no model of type 'whisper'"


@pytest.mark.slow
def test_a_sink_keeps_the_backend_of_its_first_plan(corpus, whisper, tiny, monkeypatch):
    run_without_ray(monkeypatch)
    made = left_open(corpus, whisper)
    assert raysp.run(made).rows == 4
    record = json.loads((corpus / "out" / ".raysp" / "run.json").read_text())
    assert record["pipeline"]["steps"][1]["backend"] == "transformers"
    assert record["parts"]["steps.1.backend"] == "transformers"
    assert raysp.plan(made).rows_todo == 0
    assert raysp.verify(made.sink.url, sample=4, trust=True).differences == ()
    assert raysp.verify(made.sink.url, sample=4, pipeline=made).differences == ()
    with pytest.raises(ChangedError, match=r"the files of `steps.1.checkpoint` changed"):
        raysp.plan(left_open(corpus, tiny))
    without_packages(monkeypatch, "transformers")
    with pytest.raises(PlanError, match=r"made with backend='transformers', and transformers is not .*pip install"):
        raysp.plan(made)


def test_a_backend_that_was_named_once_is_kept_though_raysp_reads_the_checkpoint(corpus, tiny, monkeypatch):
    run_without_ray(monkeypatch)
    assert raysp.run(left_open(corpus, tiny, backend="transformers")).rows == 4
    again = raysp.plan(left_open(corpus, tiny))
    assert again.settings.checkpoint.backend == "transformers"
    assert again.rows_todo == 0
    without_packages(monkeypatch, "transformers")
    with pytest.raises(PlanError, match=r"transformers is not installed here; .*, or use another sink with what is"):
        raysp.run(left_open(corpus, tiny))


@pytest.mark.slow
def test_apply_chooses_too(corpus, whisper):
    steps = left_open(corpus, whisper).steps
    rows = pq.read_table(corpus / "in" / "a.parquet").slice(0, 1)
    labelled = raysp.Labeller(steps, id="id")(rows)
    assert labelled["status"].to_pylist() == ["ok"]


def test_a_sink_of_raysp_is_not_labelled_by_transformers_later(corpus, tiny, whisper, monkeypatch):
    run_without_ray(monkeypatch)
    assert raysp.run(left_open(corpus, tiny)).rows == 4
    with pytest.raises(ChangedError, match=r"steps.1.backend` was unset, now 'transformers'"):
        raysp.plan(left_open(corpus, whisper))


def test_without_transformers_the_message_says_that_it_would_read_the_checkpoint(corpus, whisper, monkeypatch):
    without_packages(monkeypatch, "transformers")
    with pytest.raises(CheckpointError, match=r"transformers reads it, and is not installed: pip install 'raysp\[tra"):
        raysp.plan(left_open(corpus, whisper))
    (corpus / "unknown").mkdir()
    (corpus / "unknown" / "config.json").write_text(json.dumps({"model_type": "loudness"}))
    with pytest.raises(
        CheckpointError, match="if it is a speech model, transformers may read it, and is not installed"
    ):
        raysp.plan(left_open(corpus, corpus / "unknown"))


@pytest.mark.parametrize("model_type", OF_TRANSFORMERS)
def test_the_models_that_messages_promise_are_those_of_transformers(corpus, model_type, monkeypatch):
    (corpus / "model").mkdir()
    (corpus / "model" / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(CheckpointError, match=r"transformers [\d.]+ refuses it too: .*architectures is None, expected"):
        raysp.plan(left_open(corpus, corpus / "model"))
    without_packages(monkeypatch, "transformers")
    with pytest.raises(CheckpointError, match=r"transformers reads it, and is not installed: pip install 'raysp\[tra"):
        raysp.plan(left_open(corpus, corpus / "model"))


def test_a_checkpoint_that_neither_reads_has_one_message_with_both_reasons(corpus):
    folder = tiny_waveform_model(corpus / "model", "WavLMForCTC", add_adapter=True)
    words = r"^raysp has no model of type 'wavlm'; transformers [\d.]+ refuses it too: .*add_adapter changes"
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(left_open(corpus, folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "vibevoice_asr"}))
    with pytest.raises(CheckpointError, match=r"refuses it too: .* adds random noise .*; use another recogniser$"):
        raysp.plan(left_open(corpus, folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "loudness"}))
    words = r"expected one of hubert, .*, which transformers [\d.]+ does not read; .* \(entry points raysp.models\)$"
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(left_open(corpus, folder))


def test_the_same_reason_is_said_once(corpus):
    (corpus / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"config.json: not found") as raised:
        raysp.plan(left_open(corpus, corpus / "empty"))
    assert str(raised.value).count("not found") == 1


def test_weights_that_are_missing_have_the_reason_of_raysp_alone(corpus):
    folder = tiny_waveform_model(corpus / "model", "HubertForCTC")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r": no weights there, [^;]*; [^;]*: complete the checkpoint$"):
        raysp.plan(left_open(corpus, folder))


def test_files_that_disagree_are_refused_though_transformers_would_take_them(corpus):
    folder = tiny_waveform_model(corpus / "model", "HubertForCTC")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert raysp.plan(left_open(corpus, folder, backend="transformers")).rows_todo == 4
    with pytest.raises(CheckpointError, match=r"lm_head.weight"):
        raysp.plan(left_open(corpus, folder))


def smaller(tokens):
    return {token: index for index, token in enumerate(tokens[:-2])}


def larger(tokens):
    return {token: index for index, token in enumerate([*tokens, "P", "Q"])}


def gap(tokens):
    return {token: index for index, token in enumerate(tokens) if token != "E"}


def twice(tokens):
    return {**{token: index for index, token in enumerate(tokens)}, "O": tokens.index("E")}


def two_names(tokens):
    return {**{token: index for index, token in enumerate(tokens)}, "\u00c9": tokens.index("E")}


def without_pad(tokens):
    return {token.replace("<pad>", "<blank>"): index for index, token in enumerate(tokens)}


def without_unknown(tokens):
    return {token.replace("<unk>", "P"): index for index, token in enumerate(tokens)}


def negative(tokens):
    return {**{token: index for index, token in enumerate(tokens)}, "O": -1}


def empty(tokens):
    return {}


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (larger, r"ids without a class 20, 21"),
        (smaller, r"classes without a token 18, 19"),
        (gap, r"classes without a token 9"),
        (twice, r"classes without a token 19"),
        (two_names, None),
        (without_pad, r"pad_token"),
        (without_unknown, None),
        (negative, r"id of 'O' is -1, expected an integer of at least 0"),
        (empty, r"vocab.json holds no tokens"),
    ],
)
def test_both_backends_answer_alike_about_an_odd_vocabulary(corpus, tmp_path, change, answer):
    for name in ("HubertForCTC", "WavLMForCTC"):
        folder = tiny_waveform_model(tmp_path / name, name)
        (folder / "vocab.json").write_text(json.dumps(change(TOKENS)))
    answers = [
        answer_of(pipeline(corpus, tmp_path / name, backend=backend))
        for name, backend in (
            ("HubertForCTC", "torch"),
            ("HubertForCTC", "transformers"),
            ("WavLMForCTC", "transformers"),
        )
    ]
    assert answers[0] == answers[1] == answers[2].replace("WavLM", "Hubert")
    if answer is None:
        assert answers[0] == ""
    else:
        assert re.search(answer, answers[0])


def answer_of(made) -> str:
    """Return the error for the checkpoint of a pipeline; empty if it is accepted."""
    try:
        raysp.plan(made)
    except CheckpointError as error:
        return str(error)
    return ""


def test_causes_of_errors_of_transformers_are_kept(tmp_path):
    folder = tiny_waveform_model(tmp_path / "model", "WavLMForCTC")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "gulu"}))
    with pytest.raises(CheckpointError, match=r"KeyError: 'gulu'") as raised:
        loaded(folder)
    assert isinstance(raised.value.__cause__, KeyError)


def test_weights_of_another_shape_are_named_by_transformers_too(tmp_path):
    folder = tiny_waveform_model(tmp_path / "model", "WavLMForCTC")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.zeros(3, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"mismatched_keys lm_head.weight \[3, 16\] instead of \[20, "):
        loaded(folder)


def loaded(folder):
    return raysp.Labeller(pipeline(folder, folder).steps)
