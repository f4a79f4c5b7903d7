"""Every text decoder against transformers: outputs, cache, gradients, checkpoints; and what each one has of its own."""

import copy

import pytest
import safetensors.torch
import torch

import raysp.models
from raysp import CheckpointError
from raysp.models import BertLMHeadModel
from tests.models import decoder_oracles as oracles
from tests.models.decoder_oracles import BART, BERT, GPT2, assert_close, frames_and_mask, token_ids
from tests.models.oracles import transformers
from tests.models.parity import assert_equal_gradients

CLASSES = {"bert": "BertLMHeadModel", "gpt2": "GPT2LMHeadModel", "bart": "BartForCausalLM", "mbart": "MBartForCausalLM"}
NO_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "bart": {"dropout": 0.0},
    "mbart": {"dropout": 0.0},
}
OF_BART = [
    {"scale_embedding": True, "activation_function": "relu", "decoder_ffn_dim": 40},
    {"tie_word_embeddings": False, "decoder_attention_heads": 2, "encoder_attention_heads": 4},
]
VARIANTS = {
    "bert": [
        {"hidden_act": "relu", "layer_norm_eps": 0.1, "num_attention_heads": 1, "type_vocab_size": 3},
        {"hidden_act": "gelu_new", "pad_token_id": None, "tie_word_embeddings": False},
    ],
    "gpt2": [
        {"n_inner": 20, "layer_norm_epsilon": 0.1, "scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False, "activation_function": "relu", "tie_word_embeddings": False},
        {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    ],
    "bart": OF_BART,
    "mbart": [],
}


def class_of(kind):
    return getattr(raysp.models, CLASSES[kind])


def make_pair(kind, folder, **flags):
    oracle = oracles.make_decoder(kind, getattr(transformers, CLASSES[kind]), **{**NO_DROPOUT[kind], **flags})
    oracle.save_pretrained(folder)
    return oracle, class_of(kind).from_pretrained(folder)


@pytest.fixture(scope="module", params=CLASSES)
def pair(request, tmp_path_factory):
    return make_pair(request.param, tmp_path_factory.mktemp(request.param))


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "flags"), [(kind, flags) for kind in VARIANTS for flags in ({}, *VARIANTS[kind])])
def test_outputs_equal_theirs(kind, flags, tmp_path):
    """With frames and masks, with all optional outputs, and without frames."""
    oracle, model = make_pair(kind, tmp_path, **flags)
    ids, (frames, frame_mask) = token_ids(), frames_and_mask(model.config.encoder_width)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    asked = {"output_hidden_states": True, "output_attentions": True, "use_cache": False}
    for masks in ({}, {"attention_mask": mask}, {"encoder_attention_mask": frame_mask}):
        ours = model(input_ids=ids, encoder_hidden_states=frames, **masks, **asked)
        theirs = oracle(input_ids=ids, encoder_hidden_states=frames, **masks, **asked)
        assert_close(ours.logits, theirs.logits)
        for name in ("hidden_states", "attentions", "cross_attentions"):
            assert len(ours[name]) > 0
            assert_close(ours[name], theirs[name])
        plain = model(input_ids=ids, encoder_hidden_states=frames, **masks, use_cache=False)
        assert_close(plain.logits, theirs.logits)  # by the kernel that gives no weights
    assert_close(model(input_ids=ids).logits, oracle(input_ids=ids).logits)
    embeds = torch.randn(2, 4, 32)
    assert_close(
        model(inputs_embeds=embeds, encoder_hidden_states=frames).logits,
        oracle(inputs_embeds=embeds, encoder_hidden_states=frames).logits,
    )


@torch.inference_mode()
def test_the_cache_changes_nothing(pair):
    """By halves, from our cache, from tuples, and as transformers hands it on."""
    oracle, model = pair
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
    assert model(input_ids=ids, use_cache=False).past_key_values is None
    mask_of_tokens = torch.ones_like(ids)
    mask_of_tokens[0, :2] = 0
    whole = model(input_ids=ids, attention_mask=mask_of_tokens).logits
    first = model(input_ids=ids[:, :3], attention_mask=mask_of_tokens[:, :3])
    second = model(input_ids=ids[:, 3:], attention_mask=mask_of_tokens, past_key_values=first.past_key_values)
    assert_close(second.logits, whole[:, 3:])
    with pytest.raises(ValueError, match="attention_mask has 4 tokens, expected 3 cached and 4 new"):
        model(input_ids=ids[:, 3:], attention_mask=mask_of_tokens[:, 3:], past_key_values=first.past_key_values)


def test_loss_and_gradients_equal_theirs(pair):
    """In training mode but for dropout, which configurations turn off."""
    oracle, model = (copy.deepcopy(one).train() for one in pair)
    ids, (frames, mask) = token_ids(), frames_and_mask(model.config.encoder_width)
    labels = ids.clone()
    labels[1, 4:] = -100
    kwargs = {"encoder_hidden_states": frames, "encoder_attention_mask": mask, "labels": labels}
    ours, theirs = model(input_ids=ids, **kwargs), oracle(input_ids=ids, **kwargs)
    assert_close(ours.loss, theirs.loss)
    ours.loss.backward()
    theirs.loss.backward()
    assert_equal_gradients(model, oracle, 1e-3)


def test_tokens_can_be_added(pair):
    """Old tokens keep their logits, both ends stay one, and the configuration knows."""
    model = copy.deepcopy(pair[1])
    size = model.config.vocab_size
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


def test_faults_are_named(pair):
    """What cannot be: too many tokens, both kinds of input, a cache that does not fit."""
    model, ids = pair[1], token_ids()
    three = [(torch.zeros(1, 1, 1, 1),) * 3] * 2
    for arguments, options, error, message in (
        ((torch.full((1, 65), 5),), {}, ValueError, "found 65 tokens, expected at most max_position_embeddings 64"),
        ((), {}, ValueError, "expected either input_ids or inputs_embeds"),
        ((ids,), {"past_key_values": ((),)}, ValueError, "past_key_values has 1 layers, expected 2"),
        ((ids,), {"past_key_values": three}, ValueError, "has 3 tensors per layer, expec"),
        (
            (ids, model(ids).past_key_values),
            {},
            TypeError,
            "attention_mask is of KeyValueCache, .* as past_key_values=",
        ),
    ):
        with pytest.raises(error, match=message):
            model(*arguments, **options)
    alone = BertLMHeadModel(raysp.models.BertConfig(**BERT, is_decoder=True))
    with pytest.raises(ValueError, match="given to a decoder without cross attention: set add_cross_attention=True"):
        alone(ids, encoder_hidden_states=torch.zeros(2, 3, 32))


# Checkpoints as they are published


def rewrite(folder, change):
    """Replace the weights of a folder."""
    path = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path, metadata={"format": "pt"})


def with_old_norms(tensors):
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        tensors = {name.replace(new, old): value for name, value in tensors.items()}
    return tensors


def with_masks(tensors):
    masks = {"h.0.attn.bias": torch.ones(1, 1, 64, 64).tril(), "h.0.attn.masked_bias": torch.ones(())}
    return masks | {name.removeprefix("transformer."): value for name, value in tensors.items()}


PUBLISHED = {
    "bert-base, with heads of pretraining, and old names of norms": ("BertForPreTraining", BERT, with_old_norms),
    "BERT without a head": ("BertModel", BERT, dict),
    "gpt2, with causal masks and no prefix": ("GPT2LMHeadModel", GPT2, with_masks),
}
"""None of them has cross attention."""


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_kinds_of_bert_and_gpt2_become_a_decoder(kind, tmp_path):
    source, tiny, change = PUBLISHED[kind]
    torch.manual_seed(0)
    original = getattr(transformers, source)
    original(original.config_class(**tiny)).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    name = "GPT2LMHeadModel" if tiny is GPT2 else "BertLMHeadModel"
    flags = {"add_cross_attention": True, **({} if tiny is GPT2 else {"is_decoder": True})}
    model = getattr(raysp.models, name).from_pretrained(tmp_path, strict=False, **flags)
    theirs = getattr(transformers, name).from_pretrained(tmp_path, **flags).state_dict()
    for key, value in model.state_dict().items():
        if "crossattention" not in key and (source != "BertModel" or not key.startswith("cls.")):
            assert torch.equal(value, theirs[key]), key
    assert model(token_ids(), encoder_hidden_states=frames_and_mask()[0]).logits.isfinite().all()
    with pytest.raises(CheckpointError, match=r"missing .*crossattention"):
        getattr(raysp.models, name).from_pretrained(tmp_path, strict=True, **flags)


def untied(tensors):
    head = "cls.predictions.decoder"
    weight = tensors["bert.embeddings.word_embeddings.weight"] + 1.0
    return {**tensors, f"{head}.weight": weight, f"{head}.bias": tensors["cls.predictions.bias"].clone()}


def test_tied_weights_with_different_values_are_refused_with_both_names(tmp_path):
    make_pair("bert", tmp_path)
    rewrite(tmp_path, untied)
    names = r"cls\.predictions\.decoder\.weight and bert\.embeddings\.word_embeddings\.weight hold different values"
    with pytest.raises(CheckpointError, match=names):
        BertLMHeadModel.from_pretrained(tmp_path)
    model = BertLMHeadModel.from_pretrained(tmp_path, tie_word_embeddings=False)
    theirs = transformers.BertLMHeadModel.from_pretrained(tmp_path, tie_word_embeddings=False)
    assert torch.equal(model.get_output_embeddings().weight, theirs.get_output_embeddings().weight)
    assert not torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize(("kind", "source"), [("bart", "ForConditionalGeneration"), ("mbart", "Model")])
def test_the_decoder_is_taken_out_of_a_whole_model(kind, source, tmp_path):
    config = oracles.CONFIGS[kind][0](**BART)
    torch.manual_seed(0)
    whole = getattr(transformers, type(config).__name__.removesuffix("Config") + source)(config).eval()
    whole.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: {**tensors, "decoder.version": torch.zeros(1)})  # in the oldest ones
    model = class_of(kind).from_pretrained(tmp_path)
    ids, (frames, mask) = token_ids(), frames_and_mask()
    decoder = whole.model.decoder if source != "Model" else whole.decoder
    hidden = decoder(ids, encoder_hidden_states=frames, encoder_attention_mask=mask).last_hidden_state
    found = model(ids, encoder_hidden_states=frames, encoder_attention_mask=mask, output_hidden_states=True)
    assert_close(found.hidden_states[-1], hidden)
    shared = whole.get_input_embeddings().weight
    assert_close(found.logits, hidden @ shared.T)
