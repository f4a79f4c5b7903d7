import pytest
import torch
from torch import nn

from raysp.models.base.kernels import FEW_ROWS, activation, dense, few_rows, filled, linear


@pytest.mark.parametrize("act", ["linear", "relu", "swish", "silu", "gelu"])
@pytest.mark.parametrize("shape", [(7, 24), (2, 48, 24), (0, 24), (1, 24), (32, 24), (2, 512, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_an_activated_product_is_the_same_with_and_without_gradients(act, shape, bias):
    module, x = nn.Linear(24, 40, bias=bias), torch.randn(shape)
    expected = activation(act)(module(x))
    assert dense(module, x, act).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(dense(module, x, act), expected, atol=1e-5, rtol=1e-5)
        columns = torch.randn(64, 2 * shape[-1])[:, ::2]
        torch.testing.assert_close(linear(columns, module.weight), columns @ module.weight.T, atol=1e-5, rtol=1e-5)


def test_few_numbers_of_rows_are_multiplied_at_once():
    numbers = {filled(count) for count in range(1, 40_000)}
    assert len(numbers) < 250  # oneDNN keeps a program for each
    for count in range(1, 40_000):
        assert count <= filled(count) <= count + max(FEW_ROWS - 1, count / 30)
        assert filled(filled(count)) == filled(count)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 5, 8, 9, 17])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_a_few_rows_are_those_of_any_others(num_rows, dtype):
    layer, x = torch.nn.Linear(24, 40).to(dtype), torch.randn(num_rows, 1, 24).to(dtype)
    expected = layer(x)
    with torch.inference_mode():
        for bias in (layer.bias, None):
            found = few_rows(x, layer.weight, bias)
            assert (found.shape, found.dtype) == (expected.shape, dtype)
            wanted = expected if bias is not None else expected - layer.bias
            torch.testing.assert_close(
                found, wanted.detach(), atol=0.05 if dtype == torch.bfloat16 else 1e-5, rtol=1e-2
            )
    torch.testing.assert_close(few_rows(x, layer.weight, layer.bias), expected)


def test_a_type_of_autocast_and_half_precision_are_kept():
    module, x = nn.Linear(8, 4), torch.randn(3, 8)
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            assert dense(module, x).dtype == torch.bfloat16
        assert dense(module.to(torch.bfloat16), x.to(torch.bfloat16)).dtype == torch.bfloat16


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@torch.inference_mode()
def test_modules_in_the_place_of_a_layer_are_called():
    module, x = Doubled(8, 4), torch.randn(3, 8)
    torch.testing.assert_close(dense(module, x, "relu"), 2 * (x @ module.weight.T + module.bias).relu())
