"""Grouped convolutions in bfloat16, which oneDNN computes wrongly where groups are narrow and the processor has AMX."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raysp.models import HubertConfig
from raysp.models.base.folded import WeightNormConv1d
from raysp.models.hubert import HubertBatchNormConvEmbedding

CLOSE = 0.02
"""Of the largest value: bfloat16 has eight bits."""


def assert_near(low: torch.Tensor, expected: torch.Tensor) -> None:
    assert low.dtype == torch.bfloat16
    assert (low.float() - expected).abs().max() < CLOSE * expected.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 12, 15, 16, 24, 48])
def test_a_positional_convolution_of_any_width_is_near_float32(width):
    torch.manual_seed(width)
    conv = WeightNormConv1d(4 * width, kernel=16, groups=4).eval()
    x = torch.randn(2, 4 * width, 60)
    assert_near(copy.deepcopy(conv).bfloat16()(x.bfloat16()), conv(x.bfloat16().float()))


@torch.inference_mode()
def test_a_positional_convolution_behind_a_batch_norm_is_near_float32():
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32, num_attention_heads=4, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4
    )
    embedding = HubertBatchNormConvEmbedding(config).eval()
    x = torch.randn(2, 60, 32)
    assert_near(copy.deepcopy(embedding).bfloat16()(x.bfloat16(), None), embedding(x.bfloat16().float(), None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_precisions_are_computed_as_they_are(dtype):
    conv = WeightNormConv1d(32, kernel=16, groups=4).to(dtype).eval()
    x = torch.randn(2, 32, 60, dtype=dtype)
    with torch.inference_mode():
        expected = F.conv2d(x[:, :, None], conv.weight[:, :, None], conv.bias, padding=(0, 8), groups=4)[:, :, 0]
        assert torch.equal(conv(x), expected)


def test_gradients_flow_in_bfloat16():
    conv = WeightNormConv1d(32, kernel=16, groups=4).bfloat16()
    x = torch.randn(1, 32, 40).bfloat16().requires_grad_()
    conv(x).float().square().sum().backward()
    assert isinstance(conv.bias, nn.Parameter)
    assert all(torch.isfinite(p.grad).all() for p in conv.parameters())
