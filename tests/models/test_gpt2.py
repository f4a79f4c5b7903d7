import pytest
import safetensors.torch
import torch

from raysp.errors import CheckpointError
from raysp.models import GPT2Config, GPT2LMHeadModel
from tests.models import decoder_checks
from tests.models.decoder_oracles import GPT2, assert_close, frames_and_mask, make_decoder, token_ids
from tests.models.oracles import transformers

NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
VARIANTS = {
    "plain": {},
    "narrow inner": {"n_inner": 20, "layer_norm_epsilon": 0.1},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "not scaled": {"scale_attn_weights": False, "activation_function": "relu"},
    "upcast": {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    "untied": {"tie_word_embeddings": False},
}


def make_pair(folder, **flags):
    oracle = make_decoder("gpt2", transformers.GPT2LMHeadModel, **{**NO_DROPOUT, **flags})
    oracle.save_pretrained(folder)
    return oracle, GPT2LMHeadModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("gpt2"))


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_equal_theirs(name, tmp_path):
    decoder_checks.outputs_equal_theirs(*make_pair(tmp_path, **VARIANTS[name]))


def test_the_cache_changes_nothing(pair):
    decoder_checks.the_cache_changes_nothing(*pair)


def test_a_cache_in_place_of_a_mask_is_refused_with_its_keyword(pair):
    _, ours = pair
    cache = ours(torch.tensor([[1, 2]]), use_cache=True).past_key_values
    with pytest.raises(TypeError, match=r"attention_mask is of KeyValueCache, .* as past_key_values="):
        ours(torch.tensor([[3]]), cache)


def test_loss_and_gradients_equal_theirs(pair):
    decoder_checks.loss_and_gradients_equal_theirs(*pair)


def test_gradient_checkpointing(pair, caplog):
    decoder_checks.gradient_checkpointing_changes_nothing_but_memory(pair[1], caplog)


def test_checkpoints_go_both_ways(pair, tmp_path):
    decoder_checks.checkpoints_go_both_ways(*pair, tmp_path)


def test_tokens_can_be_added(pair):
    decoder_checks.tokens_can_be_added(*pair)


def test_faults_are_named(pair, tmp_path):
    decoder_checks.faults_are_named(pair[1], tmp_path)


def test_layers_that_are_asked_for_are_new(pair, tmp_path, caplog):
    decoder_checks.layers_that_are_asked_for_are_new(pair[1], tmp_path, caplog)


@pytest.mark.slow
def test_a_continued_text_equals_theirs(pair):
    decoder_checks.a_text_goes_on_as_theirs(*pair)


@torch.inference_mode()
def test_types_and_positions_of_tokens_equal_theirs(pair):
    oracle, model = pair
    ids, types = token_ids(), token_ids(seed=5)
    positions = torch.tensor([[3, 1, 4, 1, 5, 9, 2]] * 2)
    kwargs = {"token_type_ids": types, "position_ids": positions}
    assert_close(model(ids, **kwargs).logits, oracle(ids, **kwargs).logits)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_published_kinds_of_checkpoints_become_a_decoder(prefix, tmp_path):
    """gpt2 is stored without the prefix and with its causal masks, and has no cross attention."""
    torch.manual_seed(0)
    source = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)).eval()
    source.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {
        name.replace("transformer.", prefix, 1): value for name, value in safetensors.torch.load_file(path).items()
    }
    for layer in range(2):
        tensors[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        tensors[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    ids = token_ids()
    plain = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert_close(plain(ids).logits, source(ids).logits)
    model = GPT2LMHeadModel.from_pretrained(tmp_path, strict=False, add_cross_attention=True)
    frames, _ = frames_and_mask()
    assert_close(model(ids).logits, source(ids).logits)
    assert model(ids, encoder_hidden_states=frames).logits.isfinite().all()
    with pytest.raises(CheckpointError, match=r"missing .*crossattention"):
        GPT2LMHeadModel.from_pretrained(tmp_path, strict=True, add_cross_attention=True)


def test_fields_have_two_names():
    config = GPT2Config(hidden_size=20, num_attention_heads=2)
    config.num_hidden_layers = 3
    assert (config.n_embd, config.n_head, config.n_layer, config.hidden_size) == (20, 2, 3, 20)
    assert "hidden_size" not in config.to_dict()
    assert GPT2Config.from_dict(config.to_dict()) == config
    with pytest.raises(AttributeError, match="GPT2Config has no field 'missing'"):
        _ = config.missing


def test_frames_of_another_width_are_read_as_configured():
    config = GPT2Config(**GPT2, is_decoder=True, add_cross_attention=True, cross_attention_hidden_size=20)
    frames, _ = frames_and_mask(width=20)
    model = GPT2LMHeadModel(config).init_weights()
    assert model(token_ids(), encoder_hidden_states=frames).logits.isfinite().all()


def test_defaults_are_theirs():
    ours, theirs = GPT2Config().to_dict(), transformers.GPT2Config().to_dict()
    different = {name for name, value in ours.items() if name in theirs and value != theirs[name]}
    assert different <= {"id2label", "label2id"}
