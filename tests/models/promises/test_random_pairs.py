"""Encoders and text decoders put together at random: every one with every other, and flags of either."""

import itertools
import random

import pytest
import torch

from tests.models.cases import CONVOLUTIONS, OPTIONS, unfolded
from tests.models.decoder_oracles import (
    CONFIGS,
    assert_close,
    perturbed,
    save_pair,
    theirs_generated,
    token_ids,
)
from tests.models.oracles import transformers
from tests.models.parity import inputs_and_mask
from tests.soaked import some

ENCODERS = {
    "unispeech": ("UniSpeechConfig", OPTIONS["UniSpeechModel"]),
    "wav2vec2": ("Wav2Vec2Config", OPTIONS["Wav2Vec2Model"]),
    "hubert": ("HubertConfig", OPTIONS["HubertModel"]),
    "sew-d": ("SEWDConfig", OPTIONS["SEWDModel"]),
    "wav2vec2-bert": ("Wav2Vec2BertConfig", OPTIONS["Wav2Vec2BertModel"]),
}
ACTIVATIONS = ["gelu", "relu", "gelu_new"]
OF_BART = {
    "decoder_layers": [2],  # theirs fails at a depth other than its own encoder's
    "decoder_attention_heads": [2, 4],
    "activation_function": ACTIVATIONS,
    "scale_embedding": [True, False],
    "tie_word_embeddings": [True, False],
}
DECODERS = {
    "bert": {
        "num_hidden_layers": [1, 2],
        "num_attention_heads": [2, 4],
        "hidden_act": ACTIVATIONS,
        "layer_norm_eps": [1e-12, 0.1],
        "tie_word_embeddings": [True, False],
    },
    "gpt2": {
        "n_layer": [1, 2],
        "n_inner": [None, 20],
        "activation_function": ACTIVATIONS,
        "layer_norm_epsilon": [1e-5, 0.1],
        "scale_attn_weights": [True, False],
        "scale_attn_by_inverse_layer_idx": [True, False],
        "reorder_and_upcast_attn": [True, False],
        "tie_word_embeddings": [True, False],
    },
    "bart": OF_BART,
    "mbart": OF_BART,
}
WAVES, FEATURES = (6200, 3000, 4444), (61, 37, 50)


def make(encoder, decoder, seed, folder):
    draw = random.Random(f"{encoder} {decoder} {seed}")
    name, table = ENCODERS[encoder]
    config_class, tiny = CONFIGS[decoder]
    flags = unfolded({key: draw.choice(values) for key, values in {**table, "convolutions": CONVOLUTIONS}.items()})
    flags.pop("output_hidden_size", None)  # the original projects from the wrong width
    if (encoder, decoder) == ("wav2vec2", "gpt2"):
        flags["add_adapter"] = False  # theirs fails at frames that do not lie in one piece
    torch.manual_seed(seed)
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        getattr(transformers, name)(**flags),
        config_class(**{**tiny, **{key: draw.choice(values) for key, values in DECODERS[decoder].items()}}),
        pad_token_id=1,
        decoder_start_token_id=3,
        eos_token_id=2,
    )
    config._attn_implementation = "eager"
    return save_pair(perturbed(transformers.SpeechEncoderDecoderModel(config)), folder)


@torch.no_grad()
def check(encoder, decoder, seed, folder):
    oracle, model = make(encoder, decoder, seed, folder)
    assert model.state_dict().keys() == oracle.state_dict().keys()
    width = 10 if encoder == "wav2vec2-bert" else None
    lengths = WAVES if width is None else FEATURES
    inputs, mask = inputs_and_mask(lengths, width)
    labels = token_ids(3, 6)
    labels[1, 4:] = -100
    for given in ((inputs,), (inputs, torch.ones_like(mask))):
        ours, theirs = model(*given, labels=labels), oracle(*given, labels=labels)
        assert_close(ours.logits, theirs.logits)
        assert_close(ours.loss, theirs.loss)
    found = model(inputs, mask, labels=labels).logits
    beams = {"max_new_tokens": 6, "num_beams": 2}
    texts = model.generate(inputs, mask, **beams)
    for row, length in enumerate(lengths):
        alone = inputs[row : row + 1, :length]
        assert_close(found[row], oracle(alone, labels=labels[row : row + 1]).logits[0])
        text = theirs_generated(oracle, alone, **beams)[0]
        assert torch.equal(texts[row, : len(text)], text)


PAIRS = [*itertools.product(ENCODERS, DECODERS)]
IN_SHORT = PAIRS[:: len(DECODERS) + 1] + PAIRS[-1:]
"""Each encoder and each decoder of `make test`."""


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "decoder"), some(PAIRS, *IN_SHORT))
def test_any_encoder_and_decoder_give_their_numbers_and_each_row_what_it_gives_alone(encoder, decoder, tmp_path):
    check(encoder, decoder, 0, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 40))
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_many_more_pairs(encoder, decoder, seed, tmp_path):
    check(encoder, decoder, seed, tmp_path)
