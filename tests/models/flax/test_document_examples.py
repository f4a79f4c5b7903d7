"""The examples of the page on speech encoder-decoders that are in JAX, with raysp.models in place of transformers."""

import pytest
import torch

from raysp.models import BartConfig, BartForCausalLM, SpeechEncoderDecoderModel, Wav2Vec2Config, Wav2Vec2Model
from tests.models.flax.sisters import BART, WAVES, speech_encoder_decoder

pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder, where local folders stand for the hub's ids."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_000_8_generate_with_the_tokens_of_the_decoder(here):
    speech_encoder_decoder("wav2vec2", "bart").save_pretrained("patrickvonplaten/wav2vec2-2-bart-large")
    code = """
import jax.numpy as jnp
from raysp.models import FlaxSpeechEncoderDecoderModel

model = FlaxSpeechEncoderDecoderModel.from_pretrained("patrickvonplaten/wav2vec2-2-bart-large")
inputs = jnp.ones((2, 5000), dtype=jnp.float32)
model.config.decoder_start_token_id = model.decoder.config.bos_token_id
model.config.pad_token_id = model.decoder.config.pad_token_id
model.config.eos_token_id = model.decoder.config.eos_token_id
outputs = model.generate(inputs)
"""
    names = {}
    exec(code, names)
    theirs = SpeechEncoderDecoderModel.from_pretrained("patrickvonplaten/wav2vec2-2-bart-large")
    tokens = {"decoder_start_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    assert names["outputs"].sequences.tolist() == theirs.generate(torch.ones(2, 5000), **tokens).tolist()


def test_000_9_combine_two_checkpoints_save_and_load(here):
    Wav2Vec2Model(Wav2Vec2Config(**WAVES)).save_pretrained("facebook/wav2vec2-large-lv60")
    BartForCausalLM(BartConfig(**BART)).save_pretrained("facebook/bart-large")
    code = """
from raysp.models import FlaxSpeechEncoderDecoderModel

model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
    "facebook/wav2vec2-large-lv60", "facebook/bart-large"
)
model.save_pretrained("./wav2vec2-2-bart-large")
again = FlaxSpeechEncoderDecoderModel.from_pretrained("./wav2vec2-2-bart-large")
"""
    names = {}
    exec(code, names)
    import jax

    same = jax.tree.map(lambda one, other: bool((one == other).all()), names["model"].params, names["again"].params)
    assert all(jax.tree.leaves(same))
    assert "enc_to_dec_proj.weight" in names["model"].new_weights
