import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from raysp.models.base.kernels import attention_with_dropout, dropped


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(3)


@pytest.mark.parametrize("probability", [1e-3, 0.1, 0.5, 0.9, 0.999])
def test_the_share_of_zeros_is_the_probability_and_the_rest_is_scaled(probability):
    y = dropped(torch.ones(1000, 1000), probability)
    deviation = (probability * (1 - probability) / y.numel()) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(probability, abs=5 * deviation + 1e-5)
    assert len(y[y != 0].unique()) == 1
    assert y.max().item() == pytest.approx(1 / (1 - probability), rel=1e-2 if probability > 0.99 else 1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 9), (0, 4), (2, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_shape_and_type(shape, dtype):
    x = torch.rand(shape, dtype=dtype) + 1
    y = dropped(x, 0.5)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert torch.equal(y, torch.where(y == 0, 0, 2 * x))


def test_values_of_one_tensor_are_independent():
    y = dropped(torch.ones(1 << 20), 0.5) - 1
    for distance in (1, 2, 3, 4, 8, 64):
        assert (y[distance:] * y[:-distance]).mean().abs() < 5 * len(y) ** -0.5


def test_the_seed_decides_and_each_call_draws_again():
    x = torch.rand(10, 100)
    torch.manual_seed(5)
    first, second = dropped(x, 0.3), dropped(x, 0.3)
    torch.manual_seed(5)
    assert torch.equal(dropped(x, 0.3), first)
    assert not torch.equal(first, second)


def test_without_dropout_the_tensor_itself_is_returned():
    x = torch.rand(4)
    assert dropped(x, 0.0) is x
    assert dropped(x, 0.5, training=False) is x
    assert torch.equal(dropped(x, 1.0), torch.zeros(4))
    with pytest.raises(ValueError, match="between 0 and 1"):
        dropped(x, 1.5)


def test_gradients_are_those_of_the_values_that_are_kept():
    x = torch.rand(50, dtype=torch.float64, requires_grad=True)
    y = dropped(x, 0.4)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    scale = (y / x).detach()
    torch.testing.assert_close(grad, 2 * scale**2 * x)
    (second,) = torch.autograd.grad(grad.sum(), x)
    torch.testing.assert_close(second, 2 * scale**2)


def test_a_recomputed_layer_drops_the_same_values():
    x = torch.rand(50, requires_grad=True)
    torch.manual_seed(1)
    (expected,) = torch.autograd.grad(dropped(x.sin(), 0.4).sum(), x)
    torch.manual_seed(1)
    y = checkpoint(lambda one: dropped(one.sin(), 0.4), x, use_reentrant=False)
    (found,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("masked", ["nothing", "keys", "added"])
def test_weights_of_attention_are_dropped(masked):
    q, k = torch.rand(2, 2, 3, 7, 8)
    values = torch.eye(7).expand(2, 3, 7, 7)  # what is returned are the weights
    masks = {
        "nothing": None,
        "keys": (torch.arange(7) < torch.tensor([[7], [4]]))[:, None, None],
        "added": torch.randn(2, 3, 7, 7),
    }
    weights = F.scaled_dot_product_attention(q, k, values, masks[masked], scale=0.5)
    found = attention_with_dropout(q, k, values, masks[masked], 0.25, scale=0.5)
    torch.testing.assert_close(found, torch.where(found == 0, 0, weights / 0.75))
    assert 0.1 < (found[weights > 0] == 0).float().mean() < 0.4
    torch.testing.assert_close(attention_with_dropout(q, k, values, masks[masked], 0.0, scale=0.5), weights)
