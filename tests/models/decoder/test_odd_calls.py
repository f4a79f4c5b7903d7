"""Calls of text decoders that are rare: training with checkpoints, large vocabularies, further arguments, refusals."""

import copy

import pytest
import torch

import raysp.models
from raysp import CheckpointError
from raysp.models import Wav2Vec2ForCTC
from tests.models.decoder_oracles import (
    BERT,
    GPT2,
    assert_close,
    frames_and_mask,
    token_ids,
)
from tests.models.oracles import random_model

CLASSES = {"BertLMHeadModel": BERT, "GPT2LMHeadModel": GPT2}


def decoder(name, **flags):
    torch.manual_seed(0)
    cls = getattr(raysp.models, name)
    model = cls(cls.config_class(**{**CLASSES[name], "is_decoder": True, "add_cross_attention": True, **flags}))
    return model.init_weights().eval()


@pytest.mark.parametrize("name", CLASSES)
def test_gradient_checkpointing_changes_nothing_but_memory(name, caplog):
    """Loss, weights of attention and gradients with dropout; layers are computed twice, and there is no cache."""
    model = decoder(name).train()
    again = copy.deepcopy(model)
    again.gradient_checkpointing_enable()
    ids, (frames, mask) = token_ids(), frames_and_mask()
    found, calls = [], []
    for one in (model, again):
        one.layers[1].register_forward_pre_hook(lambda *_, one=one: calls.append(one))
        torch.manual_seed(1)
        given = {"encoder_hidden_states": frames, "encoder_attention_mask": mask, "labels": ids}
        output = one(ids, **given, output_attentions=True)
        output.loss.backward()
        gradients = [parameter.grad for parameter in one.parameters() if parameter.grad is not None]
        found.append([output.loss, *(output.attentions or ()), *(output.cross_attentions or ()), *gradients])
    assert (calls.count(model), calls.count(again)) == (1, 2)
    for first, second in zip(*found, strict=True):
        assert_close(second, first)
    assert again(ids, use_cache=True).past_key_values is None
    assert "use_cache=True has no effect in training with gradient checkpointing" in caplog.text
    past = model(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="past_key_values given in training with gradient checkpointing"):
        again(ids[:, :1], past_key_values=past)


REFUSED = [
    (lambda: decoder("BertLMHeadModel", add_cross_attention=False)(token_ids(), encoder_hidden_states=torch.zeros(
        2, 3, 32)), ValueError, "given to a decoder without cross attention: set add_cross_attention=True"),
    (lambda: decoder("GPT2LMHeadModel")(token_ids(), decoder("GPT2LMHeadModel")(token_ids()).past_key_values),
     TypeError, r"attention_mask is of KeyValueCache, .* as past_key_values="),
    (lambda: decoder("GPT2LMHeadModel")(token_ids(), past_key_values=[(torch.zeros(1, 1, 1, 1),) * 3] * 2),
     ValueError, "past_key_values has 3 tensors per layer, expected 2, or 4 with an encoder"),
    (lambda: make_width(20), CheckpointError, "cross_attention_hidden_size is 20, expected the width"),
    (lambda: Wav2Vec2ForCTC(random_model("Wav2Vec2ForCTC", adapter_attn_dim=8).config, target_lang="spa").load_adapter(
        "spa"), CheckpointError, "was not loaded from a checkpoint, expected one with adapter.spa.safet"),
]  # fmt: skip


def make_width(width):
    parts = raysp.models.UniSpeechConfig(), raysp.models.BertConfig(**{**BERT, "hidden_size": 24})
    parts[1].cross_attention_hidden_size = width
    return raysp.models.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(*parts)


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_decoders_do_not_take_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
