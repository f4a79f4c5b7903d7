import copy

import pytest
import torch
import torch.nn.functional as F

from raysp.models.base.folded import PackedProduct, StepLinear


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return StepLinear(48, 96).eval()


@pytest.mark.parametrize("shape", [(4, 1, 48), (4, 48), (1, 1, 48), (1, 48), (2, 3, 48), (40, 1, 48), (48,)])
def test_every_shape_gives_what_linear_gives(layer, shape):
    x = torch.randn(shape)
    with torch.no_grad():
        found = layer(x)
    torch.testing.assert_close(found, F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)


def test_steps_follow_a_weight_that_changes(layer):
    x = torch.randn(4, 1, 48)
    with torch.no_grad():
        layer(x)
        layer.weight.mul_(2.0)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
        layer.weight = torch.nn.Parameter(torch.randn(96, 48))
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)


def test_gradients_flow_where_they_are_required(layer):
    layer(torch.randn(4, 1, 48)).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_other_types_are_multiplied_as_they_are(layer, kind):
    with torch.no_grad():
        assert layer.to(kind)(torch.randn(4, 1, 48, dtype=kind)).dtype == kind


def test_a_transposed_weight_without_bias_is_packed_too():
    weight, x, product = torch.randn(48, 96), torch.randn(4, 1, 48), PackedProduct()
    with torch.no_grad():
        torch.testing.assert_close(product(x, weight.t(), None), x @ weight, atol=1e-5, rtol=1e-5)


def test_weights_are_saved_and_copied_without_their_packed_form(layer):
    x = torch.randn(4, 1, 48)
    with torch.no_grad():
        before = layer(x)
        assert set(layer.state_dict()) == {"weight", "bias"}
        torch.testing.assert_close(copy.deepcopy(layer)(x), before)


def test_weights_made_for_inference_alone_are_multiplied_as_they_are(layer):
    with torch.inference_mode():
        made = StepLinear(8, 8)
        made.weight.zero_()
        assert (made(torch.randn(4, 1, 8)) == made.bias).all()
