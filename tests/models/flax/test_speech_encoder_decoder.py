"""The encoder-decoder in JAX against its sister in PyTorch, which is loaded from the same folder."""

import numpy as np
import pytest
import torch

from raysp import CheckpointError, models
from raysp.models import SpeechEncoderDecoderModel
from tests.models.decoder_oracles import token_ids, waves_and_mask
from tests.models.flax.sisters import BART, DECODERS, ENCODERS, WAVES, speech_encoder_decoder

pytestmark = pytest.mark.slow


def assert_close(ours, theirs, tolerance=1e-4):
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Sisters with a projection of frames, loaded from one folder."""
    folder = tmp_path_factory.mktemp("bert")
    sister = speech_encoder_decoder("wav2vec2", "bert")
    sister.save_pretrained(folder)
    return sister, models.FlaxAutoModel.from_pretrained(folder)


@pytest.mark.parametrize("decoder", ["bart", pytest.param("gpt2", marks=pytest.mark.drivers)])
def test_outputs_equal_those_of_the_sister_in_pytorch(decoder, tmp_path):
    sister = speech_encoder_decoder("wav2vec2 adapters", decoder)
    sister.save_pretrained(tmp_path)
    model = models.FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    (waves, mask), ids = waves_and_mask(), token_ids(3)
    token_mask = torch.ones_like(ids)
    token_mask[1, :2] = 0
    flags = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        theirs = sister(waves, mask, ids, token_mask, use_cache=False, **flags)
    ours = model(waves.numpy(), mask.numpy(), ids.numpy(), token_mask.numpy(), **flags)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        for mine, value in zip(*(x if isinstance(x, tuple) else (x,) for x in (ours[name], theirs[name])), strict=True):
            assert mine.shape == value.shape, name
            rows = slice(1) if name.startswith("encoder_") else slice(None)  # the first row has no padding
            assert_close(mine[rows], value[rows])


BEAMS = {"num_beams": 3, "num_return_sequences": 2, "early_stopping": "never", "eos_token_id": [2, 17]}
SEARCHES = {
    "bert": {"min_new_tokens": 4, "begin_suppress_tokens": [4], "suppress_tokens": [9, 11], "forced_eos_token_id": 2},
    "bart": {**BEAMS, "forced_bos_token_id": 6},
}


@pytest.mark.drivers
@pytest.mark.parametrize("decoder", SEARCHES)
def test_tokens_are_those_of_the_sister_in_pytorch(decoder, tmp_path):
    sister, options = speech_encoder_decoder("wav2vec2", decoder), {"max_new_tokens": 9, **SEARCHES[decoder]}
    sister.save_pretrained(tmp_path)
    model = models.FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    waves, mask = waves_and_mask()
    ours = model.generate(waves.numpy(), mask.numpy(), **options)
    assert np.asarray(ours.sequences).tolist() == sister.generate(waves, mask, **options).tolist()


def test_weights_written_by_the_flax_class_are_those_of_pytorch(tmp_path):
    for encoder, decoder in zip(ENCODERS, DECODERS, strict=False):
        sister, folder = speech_encoder_decoder(encoder, decoder), tmp_path / decoder
        sister.save_pretrained(folder / "one")
        models.FlaxSpeechEncoderDecoderModel.from_pretrained(folder / "one").save_pretrained(folder / "two")
        mine, theirs = sister.state_dict(), SpeechEncoderDecoderModel.from_pretrained(folder / "two").state_dict()
        assert mine.keys() == theirs.keys()
        assert [name for name, value in mine.items() if not torch.equal(value, theirs[name])] == []


@pytest.mark.soak
def test_half_precision_converts_parameters_that_a_folder_keeps(bert, jax, tmp_path):
    sister, model = bert
    mask = jax.tree_util.tree_map_with_path(lambda path, leaf: "layer_norm" not in str(path), model.params)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(model.to_bf16(model.params, mask))}
    assert kinds == {"bfloat16", "float32"}
    half = model.to_bf16(model.params)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(half)} == {"bfloat16"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(model.to_fp16(half))} == {"float16"}
    model.save_pretrained(tmp_path, params=half)
    assert SpeechEncoderDecoderModel.from_pretrained(tmp_path).dtype == torch.bfloat16
    again, params = models.FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path, dtype="bfloat16", _do_init=False)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    (waves, mask), ids = waves_and_mask(), token_ids(3)
    found = again(waves.numpy(), mask.numpy(), ids.numpy(), params=params).logits
    with torch.no_grad():
        expected = sister(waves, mask, ids).logits
    assert str(found.dtype) == "bfloat16"
    assert np.abs(np.asarray(found, np.float32) - expected.numpy()).mean() < 0.1


REFUSED = [
    ({"max_new_tokens": 40}, "found 40 tokens, expected at most max_position_embeddings 32: for generate"),
    ({"repetition_penalty": 1.5}, r"a Flax model does not support repetition_penalty=1\.5: set other options"),
    ({"do_sample": True, "num_beams": 2}, "does not support do_sample=True with num_beams=2: set other options"),
    ({"input_values": 1}, "2 of inputs and input_values given, expected one"),
]


def test_what_cannot_be_is_refused(bert):
    _, model = bert
    waves = waves_and_mask()[0].numpy()
    for options, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            model.generate(waves, **options)
    params = {**model.params, "enc_to_dec_proj": {"kernel": np.zeros((2, 2))}}
    with pytest.raises(ValueError, match="missing enc_to_dec_proj/bias; unexpected none; shapes enc_to_dec"):
        model.params = params
    with pytest.raises(ValueError, match="decoder_input_ids is None, expected tokens"):
        model(waves)


def test_parts_without_a_class_in_jax_are_refused(tmp_path):
    parts = {"encoder": models.Wav2Vec2Config(**WAVES), "decoder": models.MBartConfig(**BART)}
    config = models.SpeechEncoderDecoderConfig(**parts)
    with pytest.raises(
        CheckpointError, match="decoder has model_type 'mbart', expected bart or bert or gpt2 in JAX: use "
    ):
        models.FlaxSpeechEncoderDecoderModel(config, _do_init=False)
    models.HubertConfig(**WAVES).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="model_type is 'hubert', FlaxAutoModel has speech-encoder-decoder, wav2"):
        models.FlaxAutoModel.from_pretrained(tmp_path)
    with pytest.raises(ImportError, match="that raysp does not have: use 'HubertModel', or one of FlaxAutoModel, "):
        exec("from raysp.models import FlaxHubertModel")


# The examples of the page that are in JAX, with raysp.models in place of transformers

EXAMPLE_8 = """
import jax.numpy as jnp
from raysp.models import FlaxSpeechEncoderDecoderModel

model = FlaxSpeechEncoderDecoderModel.from_pretrained("patrickvonplaten/wav2vec2-2-bart-large")
inputs = jnp.ones((2, 5000), dtype=jnp.float32)
model.config.decoder_start_token_id = model.decoder.config.bos_token_id
model.config.pad_token_id = model.decoder.config.pad_token_id
model.config.eos_token_id = model.decoder.config.eos_token_id
outputs = model.generate(inputs)
"""
EXAMPLE_9 = """
from raysp.models import FlaxSpeechEncoderDecoderModel

model = FlaxSpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
    "facebook/wav2vec2-large-lv60", "facebook/bart-large"
)
model.save_pretrained("./wav2vec2-2-bart-large")
again = FlaxSpeechEncoderDecoderModel.from_pretrained("./wav2vec2-2-bart-large")
"""


@pytest.mark.drivers
def test_the_examples_of_the_page_run(jax, tmp_path, monkeypatch):
    """000-8, 000-9, in a folder where local folders stand for the hub's ids."""
    monkeypatch.chdir(tmp_path)
    sister = speech_encoder_decoder("wav2vec2", "bart")
    sister.save_pretrained("patrickvonplaten/wav2vec2-2-bart-large")
    names = {}
    exec(EXAMPLE_8, names)
    tokens = {"decoder_start_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    assert names["outputs"].sequences.tolist() == sister.generate(torch.ones(2, 5000), **tokens).tolist()
    sister.encoder.save_pretrained("facebook/wav2vec2-large-lv60")
    sister.decoder.save_pretrained("facebook/bart-large")
    exec(EXAMPLE_9, names)
    same = jax.tree.map(lambda one, other: bool((one == other).all()), names["model"].params, names["again"].params)
    assert all(jax.tree.leaves(same))
    assert "enc_to_dec_proj.weight" in names["model"].new_weights
