"""Keywords of transformers that scripts pass to `from_pretrained` and `save_pretrained`."""

import pytest
import torch
import transformers

from raysp import CheckpointError
from raysp.models import (
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2ForCTC,
)
from tests.models.oracles import TINY

BERT = {"model_type": "bert", "vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT |= {"intermediate_size": 24, "max_position_embeddings": 64, "is_decoder": True, "add_cross_attention": True}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Wav2Vec2ForCTC(Wav2Vec2Config(**TINY)).eval()


def encoder_decoder():
    torch.manual_seed(0)
    config = SpeechEncoderDecoderConfig(encoder=Wav2Vec2Config(**TINY).to_dict(), decoder=BERT)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return SpeechEncoderDecoderModel(config)


def assert_same(one, other):
    expected = other.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("size", ["20KB", "0.02 MB", 20_000, "19 KiB"])
def test_files_of_weights_have_the_largest_size_that_is_given(model, tmp_path, size):
    model.save_pretrained(tmp_path, max_shard_size=size)
    files = list(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1
    assert_same(Wav2Vec2ForCTC.from_pretrained(tmp_path), model)
    assert_same(transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path), model)


@pytest.mark.parametrize("size", ["20 K", "KB", "-1KB", "0", "5 GB of it"])
def test_a_size_that_is_none_is_refused(model, tmp_path, size):
    with pytest.raises(ValueError, match=r"max_shard_size is .*, expected a number of bytes, or a size such as '5GB'"):
        model.save_pretrained(tmp_path, max_shard_size=size)


def test_weights_may_be_given_in_place_of_those_of_files(model, tmp_path):
    given = model.state_dict()
    found = Wav2Vec2ForCTC.from_pretrained(None, config=model.config, state_dict=given)
    assert_same(found, model)
    with torch.no_grad():
        found.lm_head.weight.zero_()
    assert model.lm_head.weight.any()
    Wav2Vec2ForCTC(model.config).save_pretrained(tmp_path)
    assert_same(Wav2Vec2ForCTC.from_pretrained(tmp_path, state_dict=given), model)
    with pytest.raises(ValueError, match="name is None, expected a folder or a hub id, or both"):
        Wav2Vec2ForCTC.from_pretrained(None, config=model.config)


def test_a_tokenizer_has_ids_of_its_tokens_and_encodes():
    tokenizer = Wav2Vec2CTCTokenizer({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5})
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.encode("A A")) == (1, 2, [5, 4, 5])
    without = Wav2Vec2CTCTokenizer({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3}, bos_token=None, eos_token=None)
    assert without.bos_token_id is without.eos_token_id is None


def test_weights_that_a_trainer_saved_without_a_configuration_are_refused_with_advice(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "training_args.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"writes the weights of this model and no config.json: call model.save_"):
        Wav2Vec2ForCTC.from_pretrained(tmp_path)
