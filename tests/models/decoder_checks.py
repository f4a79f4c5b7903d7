"""Checks of every text decoder, run by the test file of each architecture."""

import copy

import pytest
import torch

from raysp.errors import CheckpointError
from raysp.models import AutoModelForCausalLM
from tests.models.decoder_oracles import assert_close, frames_and_mask, theirs_generated, token_ids

FIELDS = ("hidden_states", "attentions", "cross_attentions")


@torch.inference_mode()
def outputs_equal_theirs(oracle, model):
    """With frames and masks, with all optional outputs, and without frames."""
    ids, (frames, frame_mask) = token_ids(), frames_and_mask(model.config.encoder_width)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    asked = {"output_hidden_states": True, "output_attentions": True, "use_cache": False}
    for masks in ({}, {"attention_mask": mask}, {"encoder_attention_mask": frame_mask}):
        ours = model(input_ids=ids, encoder_hidden_states=frames, **masks, **asked)
        theirs = oracle(input_ids=ids, encoder_hidden_states=frames, **masks, **asked)
        assert_close(ours.logits, theirs.logits)
        for name in FIELDS:
            assert len(ours[name]) == len(theirs[name]) > 0
            for mine, other in zip(ours[name], theirs[name], strict=True):
                assert_close(mine, other)
        plain = model(input_ids=ids, encoder_hidden_states=frames, **masks, use_cache=False)
        assert_close(plain.logits, theirs.logits)  # by the kernel that gives no weights
    assert_close(model(input_ids=ids).logits, oracle(input_ids=ids).logits)
    embeds = torch.randn(2, 4, frames.shape[-1] if frames.shape[-1] == 32 else 32)
    assert_close(
        model(inputs_embeds=embeds, encoder_hidden_states=frames).logits,
        oracle(inputs_embeds=embeds, encoder_hidden_states=frames).logits,
    )


@torch.inference_mode()
def the_cache_changes_nothing(oracle, model):
    """Token by token, by halves, from our cache, from tuples, and as transformers hands it on."""
    ids, (frames, mask) = token_ids(), frames_and_mask(model.config.encoder_width)
    kwargs = {"encoder_hidden_states": frames, "encoder_attention_mask": mask}
    whole = model(input_ids=ids, **kwargs)
    theirs = oracle(input_ids=ids, **kwargs)
    expected = [layer.keys for layer in theirs.past_key_values.self_attention_cache.layers]
    crossed = [layer.values for layer in theirs.past_key_values.cross_attention_cache.layers]
    for (keys, _, _, cross_values), key, value in zip(whole.past_key_values, expected, crossed, strict=True):
        assert_close(keys, key)
        assert_close(cross_values, value)
    first = model(input_ids=ids[:, :3], **kwargs)
    for past in (first.past_key_values, first.past_key_values.to_tuple()):
        second = model(input_ids=ids[:, 3:], past_key_values=past, **kwargs)
        assert_close(second.logits, whole.logits[:, 3:])
        assert [len(layer) for layer in past] == [4] * len(model.layers)
        assert past[0][0].shape[2] == 3  # what was given is as it was
    alone = model(input_ids=ids[:, 3:], past_key_values=first.past_key_values, encoder_attention_mask=mask)
    assert_close(alone.logits, whole.logits[:, 3:])  # frames are in the cache
    past, logits = None, []
    for place in range(ids.shape[1]):
        step = model(input_ids=ids[:, place : place + 1], past_key_values=past, **kwargs)
        past = step.past_key_values
        logits.append(step.logits)
    assert_close(torch.cat(logits, 1), whole.logits)
    assert model(input_ids=ids, use_cache=False).past_key_values is None
    mask_of_tokens = torch.ones_like(ids)
    mask_of_tokens[0, :2] = 0
    whole = model(input_ids=ids, attention_mask=mask_of_tokens).logits
    first = model(input_ids=ids[:, :3], attention_mask=mask_of_tokens[:, :3])
    second = model(input_ids=ids[:, 3:], attention_mask=mask_of_tokens, past_key_values=first.past_key_values)
    assert_close(second.logits, whole[:, 3:])
    with pytest.raises(ValueError, match="attention_mask has 4 tokens, expected 3 cached and 4 new"):
        model(input_ids=ids[:, 3:], attention_mask=mask_of_tokens[:, 3:], past_key_values=first.past_key_values)


def loss_and_gradients_equal_theirs(oracle, model):
    """In training mode but for dropout, which configurations turn off."""
    model, oracle = copy.deepcopy(model).train(), copy.deepcopy(oracle).train()
    ids, (frames, mask) = token_ids(), frames_and_mask(model.config.encoder_width)
    labels = ids.clone()
    labels[1, 4:] = -100
    kwargs = {"encoder_hidden_states": frames, "encoder_attention_mask": mask, "labels": labels}
    ours, theirs = model(input_ids=ids, **kwargs), oracle(input_ids=ids, **kwargs)
    assert_close(ours.loss, theirs.loss)
    ours.loss.backward()
    theirs.loss.backward()
    expected = {name: parameter.grad for name, parameter in oracle.named_parameters() if parameter.grad is not None}
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-3, rtol=1e-3, msg=name)


def gradient_checkpointing_changes_nothing_but_memory(model, caplog):
    """Loss, weights of attention and gradients with dropout; layers are computed twice, and there is no cache."""
    model = copy.deepcopy(model).train()
    for name in ("attn_pdrop", "attention_dropout", "dropout", "attention_probs_dropout_prob", "resid_pdrop"):
        if hasattr(model.config, name):
            setattr(model.config, name, 0.3)
    again = copy.deepcopy(model)
    again.gradient_checkpointing_enable()
    assert again.is_gradient_checkpointing
    ids, (frames, mask) = token_ids(), frames_and_mask(model.config.encoder_width)
    kwargs = {"input_ids": ids, "encoder_hidden_states": frames, "encoder_attention_mask": mask, "labels": ids}
    found, calls = {}, {model: 0, again: 0}
    for one in (model, again):

        def count(*_, one=one):
            calls[one] += 1

        one.layers[1].register_forward_pre_hook(count)
        for with_weights in (False, True):
            leaf = frames.clone().requires_grad_()
            torch.manual_seed(1)
            output = one(**{**kwargs, "encoder_hidden_states": leaf}, output_attentions=with_weights)
            output.loss.backward()
            weights = [*(output.attentions or ()), *(output.cross_attentions or ())]
            assert len(weights) == (4 if with_weights else 0)
            found.setdefault(one, []).extend([output.loss, leaf.grad, *weights])
    assert calls == {model: 2, again: 4}
    for first, second in zip(found[model], found[again], strict=True):
        assert_close(second, first)
    for first, second in zip(model.parameters(), again.parameters(), strict=True):
        assert (first.grad is None) == (second.grad is None)
        if first.grad is not None:
            torch.testing.assert_close(second.grad, first.grad)
    assert again(input_ids=ids).past_key_values is None
    assert not caplog.records
    assert again(input_ids=ids, use_cache=True).past_key_values is None
    assert "use_cache=True has no effect in training with gradient checkpointing" in caplog.text
    past = model(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="past_key_values given in training with gradient checkpointing"):
        again(input_ids=ids[:, :1], past_key_values=past)
    with torch.no_grad():
        assert again(input_ids=ids, use_cache=True).past_key_values is not None
    again.gradient_checkpointing_disable()
    assert again(input_ids=ids, use_cache=True).past_key_values is not None


def checkpoints_go_both_ways(oracle, model, folder):
    """Names, values, and no weight missing or left over."""
    assert model.state_dict().keys() == oracle.state_dict().keys()
    model.save_pretrained(folder)
    again, info = type(oracle).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    for name, value in oracle.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert torch.equal(model.state_dict()[name], value), name
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is type(model)


def tokens_can_be_added(oracle, model):
    """Old tokens keep their logits, both ends stay one, and the configuration knows."""
    model, size = copy.deepcopy(model), model.config.vocab_size
    ids = token_ids()
    before = model(input_ids=ids).logits
    assert model.resize_token_embeddings(size + 3) is model.get_input_embeddings()
    assert model.config.vocab_size == model(input_ids=ids).logits.shape[-1] == size + 3
    assert_close(model(input_ids=ids).logits[..., :size], before)
    assert model(input_ids=torch.full((1, 2), size + 2)).logits.isfinite().all()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.resize_token_embeddings(size - 10, pad_to_multiple_of=8)
    assert model.config.vocab_size == size - 10 + (-(size - 10)) % 8
    assert model(input_ids=ids.clamp(max=30), labels=ids.clamp(max=30)).loss.isfinite()


def faults_are_named(model, folder):
    """What cannot be: too many tokens, both kinds of input, frames without cross attention, other weights."""
    with pytest.raises(ValueError, match="found 65 tokens, expected at most max_position_embeddings 64"):
        model(input_ids=torch.full((1, 65), 5))
    with pytest.raises(ValueError, match="expected either input_ids or inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="past_key_values has 1 layers, expected 2"):
        model(input_ids=token_ids(), past_key_values=((),))
    model.save_pretrained(folder)
    deeper = {_depth(model): 3}
    with pytest.raises(CheckpointError, match=r"weights do not fit config\.json: missing"):
        type(model).from_pretrained(folder, strict=True, vocab_size=model.config.vocab_size, **deeper)
    type(model.config).from_dict(model.config.to_dict(), **deeper).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"weights do not fit config\.json: missing"):
        type(model).from_pretrained(folder)


def layers_that_are_asked_for_are_new(model, folder, caplog):
    """A layer more than the checkpoint has is randomly initialised, and reported; the others are the checkpoint's."""
    model.save_pretrained(folder)
    again, info = type(model).from_pretrained(folder, output_loading_info=True, **{_depth(model): 3})
    assert len(info["missing_keys"]) == len(again.stored_weights()) - len(model.stored_weights()) > 0
    assert all(".2." in name for name in info["missing_keys"])
    assert "randomly initialised, train them before use" in caplog.text
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def _depth(model):
    return "decoder_layers" if hasattr(model.config, "decoder_layers") else "num_hidden_layers"


@torch.inference_mode()
def a_text_goes_on_as_theirs(oracle, model):
    """Without an encoder, alone and padded on the left."""
    ids = token_ids()
    assert torch.equal(model.generate(ids), theirs_generated(oracle, ids))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    for options in ({"num_beams": 1}, {"num_beams": 3}):
        ours = model.generate(ids, attention_mask=mask, max_new_tokens=6, **options)
        theirs = theirs_generated(oracle, ids, attention_mask=mask, max_new_tokens=6, **options)
        assert torch.equal(ours, theirs)
