"""Attention with biases by distance on the stand-in device: the bias of all rows and heads is never in memory.

Of Wav2Vec2-BERT and SEW-D, over two rows of 300 frames, in blocks of one head of a row.
"""

import copy

import pytest
import torch

from raysp.models import SEWDConfig, Wav2Vec2BertConfig
from raysp.models.encoder import relative_attention
from raysp.models.encoder.conformer import SelfAttention, sinusoids
from raysp.models.encoder.disentangled import DisentangledSelfAttention, Distances
from raysp.models.encoder.relative_attention import clipped_distances
from tests.device.class_cases import SMALL, WAVES
from tests.device.stand_in import NAME, counted

NUM_FRAMES = 300
HIDDEN = torch.randn(2, NUM_FRAMES, 32, generator=torch.Generator().manual_seed(0))
VALID = torch.arange(NUM_FRAMES) < torch.tensor([[NUM_FRAMES], [220]])
WHOLE = 4 * 2 * 4 * NUM_FRAMES**2
"""Bytes of a bias of all rows and heads."""
CONFIG = Wav2Vec2BertConfig(**SMALL, left_max_position_embeddings=20, right_max_position_embeddings=8)


def of_keys():
    """Products with an embedding for each distance (Shaw et al. 2018)."""
    module = SelfAttention(CONFIG, 32, "relative_key")
    return module, lambda device: (clipped_distances(NUM_FRAMES, 20, 8, torch.device(device)), False)


def of_sinusoids():
    """Products with projected sinusoids (Dai et al. 2019)."""
    module = SelfAttention(CONFIG, 32, "relative")
    return module, lambda device: (sinusoids(NUM_FRAMES, 32, torch.zeros(1, device=device)), False)


def disentangled(buckets: int):
    config = SEWDConfig(**SMALL, **WAVES, position_buckets=buckets, max_position_embeddings=400)
    module = DisentangledSelfAttention(config)
    table = torch.randn(2 * config.distance_span, 32, generator=torch.Generator().manual_seed(1))
    return module, lambda device: (Distances.of(config, table.to(device), NUM_FRAMES), False)


CASES = {
    "Wav2Vec2-BERT": (of_keys, 360_000),
    "Wav2Vec2-BERT with sinusoids": (of_sinusoids, 718_800),
    "SEW-D": (lambda: disentangled(16), 360_000),
    "SEW-D without buckets": (lambda: disentangled(-1), 718_800),
}
"""Modules, and the bytes of the largest tensor that one makes."""


@pytest.mark.parametrize("name", CASES)
def test_no_bias_of_all_rows_and_heads_is_in_memory(name, monkeypatch):
    torch.manual_seed(0)
    make, largest = CASES[name]
    module, positions = make()
    module = module.eval()
    there = copy.deepcopy(module).to(NAME)
    hidden, keys = HIDDEN.to(NAME), VALID[:, None, None].to(NAME)
    with torch.no_grad():
        expected, _ = module(HIDDEN, VALID[:, None, None], *positions("cpu"))
        at_once, _ = there(hidden, keys, *positions(NAME))
        monkeypatch.setattr(relative_attention, "BLOCK_SCORES_OF_GPUS", NUM_FRAMES**2)
        given = positions(NAME)
        with counted() as counts:
            found, _ = there(hidden, keys, *given)
    torch.testing.assert_close(found.cpu(), at_once.cpu(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-5)
    assert counts.largest_bytes == largest < WHOLE / 2
    assert counts.waits == {}


def test_gradients_see_the_whole_bias(monkeypatch):
    torch.manual_seed(0)
    module, positions = of_keys()
    there = copy.deepcopy(module).to(NAME)
    monkeypatch.setattr(relative_attention, "BLOCK_SCORES_OF_GPUS", NUM_FRAMES**2)
    module(HIDDEN, None, *positions("cpu"))[0].square().sum().backward()
    there(HIDDEN.to(NAME), None, *positions(NAME))[0].square().sum().backward()
    found, expected = (one.distance_embedding.weight.grad for one in (there, module))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)
