import pytest
import safetensors.torch
import torch

from raysp.models import BartConfig, BartForCausalLM, MBartConfig, MBartForCausalLM
from tests.models import decoder_checks
from tests.models.decoder_oracles import BART, assert_close, frames_and_mask, make_decoder, token_ids
from tests.models.oracles import transformers

NO_DROPOUT = {"dropout": 0.0}
VARIANTS = {
    "plain": {},
    "scaled embeddings": {"scale_embedding": True},
    "relu": {"activation_function": "relu", "decoder_ffn_dim": 40},
    "untied": {"tie_word_embeddings": False},
    "other heads": {"decoder_attention_heads": 2, "encoder_attention_heads": 4},
}
KINDS = {
    "bart": (transformers.BartForCausalLM, BartForCausalLM, BartConfig),
    "mbart": (transformers.MBartForCausalLM, MBartForCausalLM, MBartConfig),
}


def make_pair(kind, folder, **flags):
    theirs, ours, _ = KINDS[kind]
    oracle = make_decoder(kind, theirs, **{**NO_DROPOUT, **flags})
    oracle.save_pretrained(folder)
    return oracle, ours.from_pretrained(folder)


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    return make_pair(request.param, tmp_path_factory.mktemp("bart"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_equal_theirs(kind, name, tmp_path):
    decoder_checks.outputs_equal_theirs(*make_pair(kind, tmp_path, **VARIANTS[name]))


def test_the_cache_changes_nothing(pair):
    decoder_checks.the_cache_changes_nothing(*pair)


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


def test_a_continued_text_equals_theirs(pair):
    decoder_checks.a_text_goes_on_as_theirs(*pair)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["ForConditionalGeneration", "Model"])
def test_the_decoder_is_taken_out_of_a_whole_model(kind, source, tmp_path):
    prefix = {"bart": "Bart", "mbart": "MBart"}[kind]
    config = getattr(transformers, prefix + "Config")(**BART)
    torch.manual_seed(0)
    whole = getattr(transformers, prefix + source)(config).eval()
    whole.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["decoder.version"] = torch.zeros(1)  # in the oldest ones
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    model = KINDS[kind][1].from_pretrained(tmp_path)
    ids, (frames, mask) = token_ids(), frames_and_mask()
    decoder = whole.model.decoder if source != "Model" else whole.decoder
    hidden = decoder(ids, encoder_hidden_states=frames, encoder_attention_mask=mask).last_hidden_state
    found = model(ids, encoder_hidden_states=frames, encoder_attention_mask=mask, output_hidden_states=True)
    assert_close(found.hidden_states[-1], hidden)
    shared = whole.get_input_embeddings().weight
    assert_close(found.logits, hidden @ shared.T)


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_depth_does_not_depend_on_the_encoder_that_a_checkpoint_came_with(kind):
    """transformers makes a cache of as many layers as the encoder had, which fails where the decoder has more."""
    _, model_class, config_class = KINDS[kind]
    model = model_class(config_class(**{**BART, "encoder_layers": 1, "decoder_layers": 4})).init_weights().eval()
    frames, _ = frames_and_mask()
    output = model(token_ids(), encoder_hidden_states=frames)
    assert len(output.past_key_values) == 4
    assert model.generate(token_ids(), max_new_tokens=4).shape == (2, 11)


def test_layers_are_left_out_in_training_alone():
    model = BartForCausalLM(BartConfig(**{**BART, "decoder_layerdrop": 1.0, "dropout": 0.0})).init_weights()
    states = model.train()(token_ids(), output_hidden_states=True).hidden_states
    assert torch.equal(states[0], states[-1])
    states = model.eval()(token_ids(), output_hidden_states=True).hidden_states
    assert not torch.equal(states[0], states[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_theirs(kind):
    _, _, config_class = KINDS[kind]
    ours, theirs = config_class().to_dict(), getattr(transformers, config_class.__name__)().to_dict()
    different = {name for name, value in ours.items() if name in theirs and value != theirs[name]}
    assert different <= {"id2label", "label2id"}
