"""Parakeet against transformers: gradients, losses, labels, generated tokens, and rows that do not depend on others.

Outputs are compared in test_encoders.py.
"""

import pytest
import torch

from tests.models.oracles import TINY_PARAKEET, make_pair
from tests.models.parity import assert_close, inputs_and_mask

LENGTHS, WIDTH = (161, 80, 123, 9), TINY_PARAKEET["num_mel_bins"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair("ParakeetForCTC", tmp_path_factory.mktemp("parakeet"))


def test_training_keeps_rows_apart_and_statistics_unchanged(tmp_path):
    still = {"dropout": 0.0, "layerdrop": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0}
    _, model = make_pair("ParakeetForCTC", tmp_path, **still)
    features, mask = inputs_and_mask(LENGTHS, WIDTH)
    expected = model(features, mask).logits
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert_close(model.train()(features, mask).logits, expected)
    assert_close(model(features[1:2, :80]).logits[0], expected[1, :10])
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name])


@torch.no_grad()
def test_generated_tokens_equal_theirs_and_are_blank_behind_a_row(pair):
    oracle, model = pair
    features, mask = inputs_and_mask(LENGTHS, WIDTH)
    tokens = model.generate(features, mask)
    assert torch.equal(tokens, oracle.generate(features, mask))
    assert tokens[1, 10:].eq(19).all()
    assert torch.equal(model.generate(features[:1]), oracle.generate(features[:1]))
    more = model.generate(features, mask, return_dict_in_generate=True, output_hidden_states=True)
    assert [*more] == ["sequences", "logits", "hidden_states"]
    assert torch.equal(more.sequences, tokens)
