import pytest
import safetensors.torch
import torch

from raysp.errors import CheckpointError
from raysp.models import BertConfig, BertLMHeadModel
from tests.models import decoder_checks
from tests.models.decoder_oracles import BERT, assert_close, frames_and_mask, make_decoder, token_ids
from tests.models.oracles import transformers

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
VARIANTS = {
    "plain": {},
    "relu and wide epsilon": {"hidden_act": "relu", "layer_norm_eps": 0.1},
    "untied": {"tie_word_embeddings": False},
    "one head, three types": {"num_attention_heads": 1, "type_vocab_size": 3},
    "gelu_new": {"hidden_act": "gelu_new", "pad_token_id": None},
}


def make_pair(folder, **flags):
    oracle = make_decoder("bert", transformers.BertLMHeadModel, **{**NO_DROPOUT, **flags})
    oracle.save_pretrained(folder)
    return oracle, BertLMHeadModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_equal_theirs(name, tmp_path):
    decoder_checks.outputs_equal_theirs(*make_pair(tmp_path, **VARIANTS[name]))


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


@pytest.mark.slow
def test_a_continued_text_equals_theirs(pair):
    decoder_checks.a_text_goes_on_as_theirs(*pair)


@torch.inference_mode()
def test_types_and_positions_of_tokens_equal_theirs(pair):
    oracle, model = pair
    ids, types = token_ids(), torch.tensor([[0, 0, 1, 1, 1, 0, 1]] * 2)
    positions = torch.tensor([[3, 1, 4, 1, 5, 9, 2]] * 2)
    kwargs = {"token_type_ids": types, "position_ids": positions}
    assert_close(model(ids, **kwargs).logits, oracle(ids, **kwargs).logits)


@pytest.mark.parametrize("kind", ["pretraining", "bare", "old norms"])
def test_published_kinds_of_checkpoints_become_a_decoder(kind, tmp_path):
    """bert-base has heads of pretraining and no cross attention; the oldest call a norm's weights gamma and beta."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**BERT)
    source = (transformers.BertModel if kind == "bare" else transformers.BertForPreTraining)(config).eval()
    source.save_pretrained(tmp_path)
    if kind == "old norms":
        path = tmp_path / "model.safetensors"
        tensors = safetensors.torch.load_file(path)
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in tensors.items()
        }
        safetensors.torch.save_file(renamed, path, metadata={"format": "pt"})
    flags = {"is_decoder": True, "add_cross_attention": True}
    model = BertLMHeadModel.from_pretrained(tmp_path, strict=False, **flags)
    decoder = transformers.BertLMHeadModel.from_pretrained(tmp_path, **flags)
    same = [name for name in model.state_dict() if "crossattention" not in name and not name.startswith("cls.")]
    if kind != "bare":
        same += [name for name in model.state_dict() if name.startswith("cls.")]
    for name in same:
        assert torch.equal(model.state_dict()[name], decoder.state_dict()[name]), name
    frames, _ = frames_and_mask()
    assert model(token_ids(), encoder_hidden_states=frames).logits.isfinite().all()
    with pytest.raises(CheckpointError, match=r"missing .*crossattention"):
        BertLMHeadModel.from_pretrained(tmp_path, strict=True, **flags)


def test_a_checkpoint_that_lacks_more_than_cross_attention_is_refused(pair, tmp_path):
    pair[0].save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing bert\.encoder\.layer\.1\.output\.dense\.weight"):
        BertLMHeadModel.from_pretrained(tmp_path, strict=False)


def test_tied_weights_with_different_values_are_refused_with_both_names(pair, tmp_path):
    pair[0].save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"] + 1.0
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    names = r"cls\.predictions\.decoder\.weight and bert\.embeddings\.word_embeddings\.weight hold different values"
    with pytest.raises(CheckpointError, match=names):
        BertLMHeadModel.from_pretrained(tmp_path)
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    model = BertLMHeadModel.from_pretrained(tmp_path, tie_word_embeddings=False)
    theirs = transformers.BertLMHeadModel.from_pretrained(tmp_path, tie_word_embeddings=False)
    assert torch.equal(model.get_output_embeddings().weight, theirs.get_output_embeddings().weight)
    assert not torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_frames_of_another_width_are_read_as_configured():
    model = BertLMHeadModel(
        BertConfig(**BERT, is_decoder=True, add_cross_attention=True, cross_attention_hidden_size=20)
    )
    frames, _ = frames_and_mask(width=20)
    assert model.init_weights()(token_ids(), encoder_hidden_states=frames).logits.isfinite().all()


def test_configurations_that_cannot_be_are_refused():
    with pytest.raises(CheckpointError, match="attention has 5 heads, expected a divisor of the width 32"):
        BertConfig(**{**BERT, "num_attention_heads": 5})
    with pytest.raises(CheckpointError, match="position_embedding_type is 'relative_key', expected 'absolute'"):
        BertConfig(position_embedding_type="relative_key")
    plain = BertLMHeadModel(BertConfig(**BERT, is_decoder=True)).init_weights()
    with pytest.raises(ValueError, match="a decoder without cross attention"):
        plain(token_ids(), encoder_hidden_states=torch.zeros(2, 3, 32))


def test_defaults_are_theirs():
    ours, theirs = BertConfig().to_dict(), transformers.BertConfig().to_dict()
    different = {name for name, value in ours.items() if name in theirs and value != theirs[name]}
    assert different <= {"id2label", "label2id"}
