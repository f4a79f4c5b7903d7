"""Forward and backward hooks on modules of a model: all modules with weights are called where they have hooks."""

import pytest
import torch

from raysp.models import ParakeetForCTC, UniSpeechForCTC, Wav2Vec2BertForCTC, Wav2Vec2ForSequenceClassification
from tests.models.parity import inputs_and_mask
from tests.models.promises.test_padded_batches import CTC_CLASSES, LOG_MELS, random_model

INNER = ("parametrizations", "codevectors")
CLASSES = [*CTC_CLASSES, Wav2Vec2ForSequenceClassification]


def inputs_of(cls):
    return inputs_and_mask((60, 41), LOG_MELS[cls]) if cls in LOG_MELS else inputs_and_mask((6001, 4700), None)


def with_weights(model):
    """Return the names of modules that hold weights themselves, and of models."""
    return {
        name
        for name, module in model.named_modules()
        if [*module.parameters(recurse=False)] and not any(part in name for part in INNER)
    }


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("cls", [one for one in CLASSES if one not in LOG_MELS])
@torch.no_grad()
def test_hooks_of_a_model_of_waveforms_run_and_see_the_numbers_without_them(cls, norm):
    model = random_model(cls, feat_extract_norm=norm)
    inputs, mask = inputs_of(cls)
    expected = model(inputs, mask).logits
    called = set()
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.add(name)) for name, module in model.named_modules()
    ]
    torch.testing.assert_close(model(inputs, mask).logits, expected, atol=1e-4, rtol=1e-4)
    front = {
        f"{model.base_model_prefix}.feature_extractor.conv_layers.{n}{part}" for n in (0, 1) for part in ("", ".conv")
    }
    assert {"", model.base_model_prefix, *front} <= called
    assert {name for name in with_weights(model) if ".conv_layers." in name} <= called
    for handle in handles:
        handle.remove()
    called.clear()
    assert torch.equal(model(inputs, mask).logits, expected)
    assert not called


@pytest.mark.parametrize("cls", [ParakeetForCTC, Wav2Vec2BertForCTC])
@torch.no_grad()
def test_hooks_of_an_encoder_of_log_mels_run(cls):
    model = random_model(cls)
    inputs, mask = inputs_of(cls)
    expected, seen = model(inputs, mask).logits, []
    model.base_model.register_forward_hook(lambda module, _, output: seen.append((module, output)))
    assert torch.equal(model(inputs, mask).logits, expected)
    [(module, output)] = seen
    assert module is model.base_model
    assert output.last_hidden_state.shape[:2] == expected.shape[:2]


@torch.no_grad()
def test_a_hook_may_replace_the_output_of_the_encoder():
    model = random_model(UniSpeechForCTC)
    inputs, mask = inputs_of(UniSpeechForCTC)

    def silenced(module, _, output):
        output.last_hidden_state = torch.zeros_like(output.last_hidden_state)
        return output

    model.unispeech.register_forward_hook(silenced)
    logits = model(inputs, mask).logits
    assert torch.equal(logits[0], model.lm_head.bias.expand_as(logits[0]))


@torch.no_grad()
def test_a_sum_of_layers_is_the_same_with_a_hook():
    model = random_model(Wav2Vec2ForSequenceClassification, use_weighted_layer_sum=True)
    inputs, mask = inputs_of(Wav2Vec2ForSequenceClassification)
    expected = model(inputs, mask)
    model.wav2vec2.register_forward_pre_hook(lambda *_: None)
    found = model(inputs, mask)
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-6, rtol=1e-5)
    assert found.hidden_states is expected.hidden_states is None


def test_backward_hooks_run_in_training():
    model = random_model(UniSpeechForCTC).train()
    inputs, mask = inputs_of(UniSpeechForCTC)
    seen = set()
    for name in ("unispeech.feature_extractor.conv_layers.1.conv", "unispeech.encoder.layers.0.attention.q_proj"):
        model.get_submodule(name).register_full_backward_hook(lambda *_, name=name: seen.add(name))
    model(inputs, mask, labels=torch.tensor([[5, 6], [8, 3]])).loss.backward()
    assert len(seen) == 2
