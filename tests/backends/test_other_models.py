"""Other models of transformers: a row in a batch has the label that it has alone, which is that of transformers."""

import json

import pytest
import torch

import raysp
from tests import kit
from tests.backends import theirs
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import RATE, labelling, tiny_waveform_model, waves
from tests.models.oracles import transformers
from tests.ops.waves import assert_alike
from tests.soaked import by_drivers

LENGTHS = (5_000, 9_000, 9_000, 16_000, 1_700, 3_210)


def rows_of(folder, output, **options) -> list[dict]:
    """Compare rows of a batch with the same rows alone, and return them."""
    together, alone = theirs.together_and_alone(labelling(folder, output, **options), waves(LENGTHS))
    for rows in zip(together, alone, strict=True):
        assert_alike(*({name: row[name] for name in row if name.startswith(("pred", "emb"))} for row in rows))
    return together


@pytest.mark.slow
@pytest.mark.parametrize("name", [*by_drivers("Wav2Vec2ConformerForCTC", "SEWForCTC"), "WavLMForCTC"])
def test_texts_of_ctc_models_are_those_of_a_loop_over_rows(tmp_path, name):
    folder = tiny_waveform_model(tmp_path, name)
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    model = getattr(transformers, name).from_pretrained(folder).eval()
    for row, wave in zip(rows_of(folder, raysp.Transcript(words=True)), waves(LENGTHS), strict=True):
        with torch.inference_mode():
            logits = model(**extractor(wave, sampling_rate=RATE, return_tensors="pt")).logits
        assert row["pred_text"] == tokenizer.batch_decode(logits.argmax(-1))[0]
        assert " ".join(word["word"] for word in row["pred_words"]) == " ".join(row["pred_text"].split())
    if name == "WavLMForCTC":  # whose results padding changes
        plan = raysp.plan(pipeline(write_corpus(tmp_path), folder))
        assert "padded seconds a pass of one length" in plan.facts["model"]
        assert "recordings of one length" in kit.run(["inspect", folder, "--backend", "transformers"]).out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("WavLMForXVector", raysp.Embedding(pooling="xvector")),
        ("UniSpeechSatForPreTraining", raysp.Embedding()),
        *by_drivers(
            ("WavLMForAudioFrameClassification", raysp.Segments()),
            ("UniSpeechSatForSequenceClassification", raysp.Classes(top_k=2)),
            ("WavLMModel", raysp.Embedding(layer=(0, 1, 2, -1))),
        ),
    ],
)
def test_other_outputs_do_not_depend_on_the_batch(tmp_path, name, output):
    folder = tiny_waveform_model(tmp_path, name)
    rows_of(folder, output)
    if name.endswith("PreTraining"):  # opens as its encoder
        facts = json.loads(kit.run(["inspect", folder, "--backend", "transformers", "--json"]).out)
        assert facts["architecture"] == "UniSpeechSatModel"
        assert {"project_hid", "project_q", "quantizer"} <= {*facts["unused"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Moonshine", *by_drivers("Speech2Text")])
def test_texts_of_other_decoders_are_those_of_a_loop_over_rows(tmp_path, name):
    folder = theirs.tiny_writer(tmp_path, name)
    assert [row["pred_text"] for row in rows_of(folder, raysp.Transcript())] == theirs.written(folder, waves(LENGTHS))


@pytest.mark.slow
def test_a_classifier_of_spectrograms_has_the_longest_window_that_it_takes(tmp_path):
    folder = theirs.tiny_spectrogram_classifier(tmp_path / "classes")
    rows_of(folder, raysp.Classes(top_k=2), window_seconds=1.2)
    write_corpus(tmp_path)
    outputs = {"outputs": [raysp.Classes()]}
    with pytest.raises(raysp.PlanError, match=r"takes at most 1.295 s; set window_seconds=1.295"):
        raysp.plan(pipeline(tmp_path, folder, **outputs))
    assert raysp.plan(pipeline(tmp_path, folder, **outputs, window_seconds=1.2)).rows_todo == 4
