"""Strided convolution: values and gradients are those of `conv1d`."""

import pytest
import torch
import torch.nn.functional as F

from raysp.models.base.kernels import strided_convolution

SHAPES = {
    "two parts of a kernel, frames left over": (3, 20, 8, 6, 3, 2),
    "a kernel of one stride": (2, 11, 8, 6, 2, 2),
    "a kernel within its stride": (2, 13, 4, 4, 2, 3),
    "no stride": (2, 9, 4, 8, 3, 1),
    "a single output frame": (1, 10, 1, 4, 10, 5),
}


def tensors(batch, num_frames, channels, num_outputs, num_taps):
    torch.manual_seed(0)
    shapes = (batch, num_frames, channels), (num_outputs, channels, num_taps), (num_outputs,)
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def plain(x, weight, bias, stride):
    return F.conv1d(x.transpose(1, 2), weight, bias, stride).transpose(1, 2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_conv1d(shape):
    *sizes, stride = shape
    given = tensors(*sizes)
    found, expected = (one(*given, stride) for one in (strided_convolution, plain))
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    pairs = zip(torch.autograd.grad(found, given, grad), torch.autograd.grad(expected, given, grad), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient(number):
    given = tensors(2, 12, 4, 4, 3)
    given[number].requires_grad_(False)
    strided_convolution(*given, 2).square().sum().backward()
    assert [one.grad is not None for one in given] == [place != number for place in range(3)]


def test_frames_of_a_larger_tensor_get_their_gradients():
    x, weight, _ = tensors(2, 24, 4, 4, 3)
    found, expected = (
        torch.autograd.grad(one(x[:, 3:17], weight, None, 2).sum(), x)[0] for one in (strided_convolution, plain)
    )
    torch.testing.assert_close(found, expected)


def test_autocast_gives_the_dtype_that_conv1d_gives():
    x, weight, bias = tensors(2, 12, 4, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = (one(x, weight, bias, 2) for one in (strided_convolution, plain))
    assert found.dtype == expected.dtype == torch.bfloat16
    found.float().sum().backward()
    assert x.grad.dtype == torch.float32
