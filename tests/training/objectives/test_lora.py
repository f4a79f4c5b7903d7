"""LoRA: which weights are trained, and the weights that a checkpoint gets."""

import pytest
import torch

from raysp import LoRA
from raysp.models import SpeechEncoderDecoderModel, load_model
from raysp.training.objectives.lora import add_lora, merged_weights
from tests.models.oracles import transformers
from tests.training.objectives.originals import ENCODERS, decoder_pair, extractor_of, model_pair, save_decoder

PROJECTIONS = {
    "sew-d": {"query_proj", "key_proj", "value_proj", "dense"},
    "wav2vec2-bert": {"linear_q", "linear_k", "linear_v", "linear_out"},
    "bert": {"query", "key", "value", "dense"},
    "gpt2": {"c_attn", "q_attn", "c_proj"},
}
OF_WAV2VEC2 = {"q_proj", "k_proj", "v_proj", "out_proj"}


def adapted(model):
    """Return a model whose products are no longer 0."""
    add_lora(model, LoRA(4, alpha=8.0), seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.3)
    return model


def classifier(encoder: str):
    """Return a model of classes, in the arithmetic that is trained."""
    return model_pair(encoder, ENCODERS[encoder][0] + "ForSequenceClassification", num_labels=3)[1]


def writer(kind: str, encoder: str = "wav2vec2 layer"):
    return decoder_pair(encoder, kind)[1]


def logits(model, encoder: str = "wav2vec2 layer") -> torch.Tensor:
    wave = torch.randn(1, 6640, generator=torch.Generator().manual_seed(0))
    features = extractor_of(encoder).extract(wave, torch.tensor([6640]))
    if hasattr(model, "decoder"):
        features["decoder_input_ids"] = torch.tensor([[3, 7, 5]])
    with torch.inference_mode():
        return model.eval()(**features).logits


def layers(model) -> dict[str, set[str]]:
    """Return the last parts of the names of adapted layers, by the first part."""
    found: dict[str, set[str]] = {}
    for name, _ in model.named_parameters():
        if ".lora_A." in name:
            layer = name.partition(".lora_A.")[0]
            found.setdefault(layer.partition(".")[0], set()).add(layer.rpartition(".")[2])
    return found


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_new_cross_attention_is_trained_whole(kind, tmp_path):
    classifier("wav2vec2 layer").base_model.save_pretrained(tmp_path / "encoder")
    decoder = save_decoder(kind, tmp_path / "decoder")
    model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "encoder", decoder)
    add_lora(model, LoRA(4, alpha=8.0), seed=0)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    new = {name for name in trained if ".lora_" not in name}
    assert new == model.new_weights
    assert any(".crossattention." in name for name in new)
    assert layers(model) == {"encoder": OF_WAV2VEC2, "decoder": PROJECTIONS[kind] - {"q_attn"}}


@pytest.mark.parametrize("encoder", ["wav2vec2 layer", "sew-d", "wav2vec2-bert"])
def test_products_begin_with_0_and_merged_weights_give_the_same_logits(encoder, tmp_path):
    model = classifier(encoder)
    before = logits(model, encoder)
    add_lora(model, LoRA(4, alpha=8.0), seed=0)
    assert layers(model) == {model.base_model_prefix: PROJECTIONS.get(encoder, OF_WAV2VEC2)}
    torch.testing.assert_close(logits(model, encoder), before, rtol=1e-4, atol=1e-5)
    check_merged(adapted(classifier(encoder)), before, tmp_path, encoder)


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_merged_weights_of_encoder_and_decoder_give_the_same_logits(kind, tmp_path):
    before = logits(writer(kind))
    check_merged(adapted(writer(kind)), before, tmp_path)


def check_merged(model, before, folder, encoder: str = "wav2vec2 layer") -> None:
    """Compare a model with LoRA with the checkpoint that is written of it, in both libraries."""
    expected = logits(model, encoder)
    assert (expected - before).abs().max() > 0.01
    model.save_pretrained(folder, state_dict=merged_weights(model))
    torch.testing.assert_close(logits(load_model(folder), encoder), expected, rtol=1e-4, atol=1e-4)
    theirs = getattr(transformers, type(model).__name__).from_pretrained(folder)
    torch.testing.assert_close(logits(theirs, encoder), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(model, encoder), expected)  # it is not changed
