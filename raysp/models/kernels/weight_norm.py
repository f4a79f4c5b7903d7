"""Weight normalisation (Salimans and Kingma 2016) of the positional convolution, folded into one weight for inference.

In half precision a CPU spends most of the time of a short row on bringing the weight into the layout of oneDNN, 6 of
7 ms for 56 frames of 768 channels. So it is kept in that layout; values are the same to the last bit.

Legend: B batch, T frames, H hidden, O output channels, C input channels of a group, K taps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.kernels.folded import Folded
from raysp.models.kernels.grouped import MIN_CHANNELS, in_safe_precision
from raysp.models.kernels.hooks import has_hooks


class WeightNorm(nn.Module):
    """The two factors of a normalised weight: `original0` its norm for each tap, `original1` its direction."""

    def __init__(self, weight_OCK: Tensor) -> None:
        super().__init__()
        is_meta = weight_OCK.device.type == "meta"  # a norm on it imports torch's compiler, which takes a second
        length_11K = weight_OCK[:1, :1] if is_meta else weight_OCK.norm(dim=(0, 1), keepdim=True)
        self.original0 = nn.Parameter(length_11K)
        self.original1 = nn.Parameter(weight_OCK)

    def forward(self) -> Tensor:
        """Return the weight; called where hooks fetch the factors."""
        return self.folded()

    def folded(self) -> Tensor:
        """Return the weight; the norm is computed in float32, as it sums many small squares."""
        length_11K, direction_OCK = self.original0.float(), self.original1.float()
        weight_OCK: Tensor = direction_OCK * (length_11K / direction_OCK.norm(dim=(0, 1), keepdim=True))
        return weight_OCK.to(self.original1.dtype)


class WeightNormConv1d(nn.Module):
    """A grouped convolution whose weight is normalised over all axes but taps; the folded weight is cached."""

    def __init__(self, channels: int, kernel: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.groups, self.stride = kernel, groups, stride
        self.bias = nn.Parameter(torch.zeros(channels))
        self.parametrizations = nn.Module()  # this and `weight` match the names of weights in checkpoints
        self.parametrizations.weight = WeightNorm(torch.randn(channels, channels // groups, kernel))
        self._folded: Folded[Tensor] = Folded()
        self._reordered: Folded[Tensor] = Folded()

    def forward(self, x_BHT: Tensor) -> Tensor:
        """Convolve with `kernel // 2` zeros on each side."""
        padding, dtype = self.kernel // 2, x_BHT.dtype
        x_BHT, weight_OCK, bias = in_safe_precision(x_BHT, self.weight, self.bias)
        if x_BHT.device.type == "cpu":  # 2d kernels are faster there, by a third with 128 taps
            x_BH1T, weight_OC1K, stride = x_BHT[:, :, None], weight_OCK[:, :, None], (1, self.stride)
            if weight_OCK.shape[1] >= MIN_CHANNELS and _can_reorder(x_BHT):
                return self._by_reordered(x_BH1T, weight_OC1K)[:, :, 0]
            return F.conv2d(x_BH1T, weight_OC1K, bias, stride, (0, padding), groups=self.groups)[:, :, 0].to(dtype)
        return F.conv1d(x_BHT, weight_OCK, bias, self.stride, padding, groups=self.groups)

    def _by_reordered(self, x_BH1T: Tensor, weight_OC1K: Tensor) -> Tensor:
        """Return the convolution with the weight in oneDNN's layout; cached like the weight."""
        shape = ([0, self.kernel // 2], [1, self.stride], [1, 1], self.groups)

        def reordered() -> Tensor:
            reorder: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
            return reorder(weight_OC1K.contiguous().to_mkldnn(), *shape, [1, *x_BH1T.shape[1:]])

        weight = self._reordered((self.norm.original0, self.norm.original1), reordered)
        y_BO1T: Tensor = torch.ops.mkldnn._convolution_pointwise(x_BH1T, weight, self.bias, *shape, "none", [], "")
        return y_BO1T

    @property
    def norm(self) -> WeightNorm:
        """The two factors of the weight."""
        norm = self.parametrizations.weight
        assert isinstance(norm, WeightNorm)
        return norm

    @property
    def weight(self) -> Tensor:
        """The folded weight; cached while neither factor changes or requires gradients."""
        if has_hooks(self.norm):
            weight_OCK: Tensor = self.norm()
            return weight_OCK
        if self.training:
            return self.norm.folded()
        return self._folded((self.norm.original0, self.norm.original1), self.norm.folded)


def _can_reorder(x: Tensor) -> bool:
    """Return whether a convolution is half precision on a CPU whose oneDNN has it, outside training and autocast."""
    supported = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return (
        not torch.compiler.is_compiling()
        and x.dtype in supported
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", supported[x.dtype]))
        and bool(getattr(torch.ops.mkldnn, supported[x.dtype])())
    )
