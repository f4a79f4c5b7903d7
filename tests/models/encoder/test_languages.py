"""The language of a checkpoint: of its tokenizer, of the weights in it, and of adapters beside them."""

import json

import pytest
import safetensors.torch
import torch
import transformers

import raysp
from raysp import CheckpointError, models
from tests.corpora import rows_table
from tests.models.encoder import many_languages

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmno"]
VOCABULARY = {letter: number for number, letter in enumerate(LETTERS)}
FRENCH = {**{letter: number for number, letter in enumerate(LETTERS[:-1])}, "é": len(LETTERS) - 1}


def model_of(seed):
    return many_languages.model_of(seed, vocab_size=len(LETTERS))


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of two languages of one size, whose weights and tokenizer are English."""
    english = model_of(0)
    english.save_pretrained(tmp_path)
    english.save_adapter(tmp_path, "eng")
    model_of(1).save_adapter(tmp_path, "fra")
    tokenizer = models.Wav2Vec2CTCTokenizer({"eng": VOCABULARY, "fra": FRENCH}, target_lang="eng")
    models.Wav2Vec2Processor(models.Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer).save_pretrained(
        tmp_path
    )
    return tmp_path


def labeller(folder, **options):
    return raysp.Labeller([raysp.Decode(), raysp.Label(str(folder), outputs=[raysp.Transcript()], **options)])


def labeller_of_transformers(folder):
    return labeller(folder, backend="transformers")


def test_a_tokenizer_of_another_language_than_the_weights_is_refused(checkpoint):
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_lang": "fra"}))
    message = (
        r"tokenizer_config.json has target_lang 'fra', but adapter layers and head of the weights differ from "
        r"adapter.fra.safetensors and equal those of adapter.eng.safetensors: set it to 'eng', or write the weights"
    )
    for opened in (models.check_checkpoint, models.load_checkpoint, labeller, labeller_of_transformers):
        with pytest.raises(CheckpointError, match=message):
            opened(checkpoint)


def test_an_adapter_of_the_announced_language_wins_over_weights_that_differ(checkpoint):
    path = checkpoint / "adapter.eng.safetensors"
    weights = safetensors.torch.load_file(path)
    name = next(name for name in weights if name.endswith("adapter_layer.linear_2.weight"))
    weights[name][-1] += 1
    safetensors.torch.save_file(weights, path)
    assert models.check_checkpoint(checkpoint).adapter == "adapter.eng.safetensors"
    theirs = transformers.Wav2Vec2ForCTC.from_pretrained(checkpoint, target_lang="eng")
    waves = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    model = models.load_checkpoint(checkpoint).model
    assert torch.equal(model.get_parameter(name), weights[name])
    with torch.inference_mode():
        torch.testing.assert_close(model(waves).logits, theirs(waves).logits, atol=1e-4, rtol=1e-4)
    found, expected = (opened(checkpoint)(rows_table(1)).to_pylist() for opened in (labeller_of_transformers, labeller))
    assert found[0]["pred_score"] == pytest.approx(expected[0]["pred_score"], abs=1e-4)
    assert found[0]["pred_text"] == expected[0]["pred_text"]
