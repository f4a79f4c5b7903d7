"""Other models of transformers: a row in a batch has the label that it has alone, which is that of transformers."""

import json

import pytest
import torch

import raysp
from raysp import CheckpointError
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import (
    RATE,
    labelling,
    tiny_spectrogram_classifier,
    tiny_waveform_model,
    tiny_writer,
    waves,
    written,
)
from tests.models.oracles import transformers
from tests.ops.test_labelling import block_of, labels

LENGTHS = (5_000, 9_000, 9_000, 16_000, 16_000, 1_700, 3_210)


def values(op, recordings) -> list[dict]:
    """Return the columns of outputs of each row."""
    rows = labels(op, block_of(recordings)).values()
    assert {row["status"] for row in rows} == {"ok"}
    return [{name: row[name] for name in row if name.startswith(("pred", "embedding"))} for row in rows]


def assert_alike(value: object, alone: object) -> None:
    """Compare two values of an output; numbers within rounding."""
    if isinstance(value, dict):
        assert_alike([*value.items()], [*alone.items()])
    elif isinstance(value, (list, tuple)):
        assert len(value) == len(alone)
        for pair in zip(value, alone, strict=True):
            assert_alike(*pair)
    else:
        assert value == (pytest.approx(alone, rel=1e-4, abs=1e-4) if isinstance(alone, float) else alone)


def check_rows_alone(folder, output, **options) -> list[dict]:
    """Compare rows of a batch with the same rows alone, and return them."""
    recordings, op = waves(LENGTHS), labelling(folder, output, **options)
    found = values(op, recordings)
    for row, recording in zip(found, recordings, strict=True):
        [alone] = values(op, [recording])
        assert row.keys() == alone.keys()
        for name, value in row.items():
            assert_alike(value, alone[name])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Wav2Vec2ConformerForCTC", "SEWForCTC", "WavLMForCTC"])
def test_texts_of_ctc_models_are_those_of_a_loop_over_rows(tmp_path, name):
    folder = tiny_waveform_model(tmp_path, name)
    found = check_rows_alone(folder, raysp.Transcript(words=True))
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    model = getattr(transformers, name).from_pretrained(folder).eval()
    for row, wave in zip(found, waves(LENGTHS), strict=True):
        with torch.inference_mode():
            logits = model(**extractor(wave, sampling_rate=RATE, return_tensors="pt")).logits
        assert row["pred_text"] == tokenizer.batch_decode(logits.argmax(-1))[0]
        assert " ".join(word["word"] for word in row["pred_words"]) == " ".join(row["pred_text"].split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("WavLMForXVector", raysp.Embedding(pooling="xvector")),
        ("WavLMForAudioFrameClassification", raysp.Segments()),
        ("UniSpeechSatForSequenceClassification", raysp.Classes(top_k=2)),
        ("WavLMModel", raysp.Embedding(layer=(0, 1, 2, -1))),
    ],
)
def test_other_outputs_do_not_depend_on_the_batch(tmp_path, name, output):
    check_rows_alone(tiny_waveform_model(tmp_path, name), output)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Moonshine", "Speech2Text"])
def test_texts_of_other_decoders_are_those_of_a_loop_over_rows(tmp_path, name):
    folder = tiny_writer(tmp_path, name)
    found = check_rows_alone(folder, raysp.Transcript())
    assert [row["pred_text"] for row in found] == written(folder, waves(LENGTHS))


@pytest.mark.slow
def test_a_classifier_of_spectrograms_has_the_longest_window_that_it_takes(tmp_path):
    folder = tiny_spectrogram_classifier(tmp_path / "classes")
    check_rows_alone(folder, raysp.Classes(top_k=2), window_seconds=1.2)
    write_corpus(tmp_path)
    outputs = {"outputs": [raysp.Classes()]}
    with pytest.raises(raysp.PlanError, match=r"takes at most 1.295 s; set window_seconds=1.295"):
        raysp.plan(pipeline(tmp_path, folder, **outputs))
    assert raysp.plan(pipeline(tmp_path, folder, **outputs, window_seconds=1.2)).rows_todo == 4


def test_passes_of_a_model_that_padding_changes_have_rows_of_one_length(tmp_path):
    plan = raysp.plan(pipeline(write_corpus(tmp_path), tiny_waveform_model(tmp_path / "model", "WavLMForCTC")))
    assert plan.settings.batching == "in batches of any size"
    assert "padded seconds a pass of one length" in plan.facts["model"]


def test_models_that_cannot_label_are_refused(tmp_path):
    folder = tiny_waveform_model(tmp_path / "model", "Wav2Vec2ConformerForCTC", pad_token_id=3)
    with pytest.raises(CheckpointError, match="both are the CTC blank"):
        raysp.plan(pipeline(write_corpus(tmp_path), folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["UniSpeechSatForPreTraining"])
def test_classes_of_pre_training_open_as_their_encoder(tmp_path, name, raysp_command):
    folder = tiny_waveform_model(tmp_path, name)
    facts = json.loads(raysp_command("inspect", folder, "--backend", "transformers", "--json").out)
    assert facts["architecture"] == name.replace("ForPreTraining", "Model")
    assert {"project_hid", "project_q", "quantizer"} <= {*facts["unused"]}
    check_rows_alone(folder, raysp.Embedding())


def test_inspect_shows_what_runs_a_checkpoint(whisper, tmp_path, raysp_command):
    ran = raysp_command("inspect", whisper, "--backend", "transformers")
    assert (ran.code, ran.err) == (0, "")
    facts = dict(line.strip().split("  ", 1) for line in ran.out.splitlines()[1:])
    assert facts["architecture"].strip() == "WhisperForConditionalGeneration (whisper)"
    assert facts["runs by"].strip() == f"transformers {transformers.__version__}"
    assert "at most 2 s" in facts["rate"]
    folder = tiny_waveform_model(tmp_path, "WavLMForCTC")
    assert "recordings of one length" in raysp_command("inspect", folder, "--backend", "transformers").out
    refused = raysp_command("inspect", whisper, "--backend", "onnx")
    assert refused.code == 2
    assert refused.err == "raysp: --backend: found 'onnx', expected one of torch, transformers, ctranslate2, vllm\n"
