"""Caches of values derived from weights, and the layers that have one; invalidated when the weights change.

Writes through `.data` and fused optimizers do not change a tensor's version. A cache is therefore a module without
weights, which `train()`, `eval()`, `load_state_dict()`, `to()` and `half()` of its parent modules reach.

Legend: B batch, T frames, H hidden, C input channels of a group, K taps, R rows, L tokens of each, I inputs, O outputs
or output channels.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Generic, NamedTuple, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from raysp.devices import is_accelerator
from raysp.models.base.kernels import (
    MIN_CHANNELS,
    has_bfloat16_products,
    in_safe_precision,
    is_inference_on_cpu,
)

Value = TypeVar("Value")


class Source(NamedTuple):
    """Identity and version of a weight from which a value was derived."""

    weight: Tensor
    """An alias, which keeps its memory from being reused."""
    version: int

    def matches(self, weight: Tensor) -> bool:
        """Return whether a weight is this one and its version unchanged."""
        kept = self.weight
        return (kept.data_ptr(), self.version, kept.dtype, kept.device) == (
            weight.data_ptr(),
            weight._version,
            weight.dtype,
            weight.device,
        )


class Kept(NamedTuple, Generic[Value]):
    """A value, the weights that it was derived from, and the number of optimizer steps until then."""

    value: Value
    sources: list[Source]
    num_steps: int


class Folded(nn.Module, Generic[Value]):
    """Cache of a value derived from weights, while they are unchanged and none requires a gradient.

    The value is recomputed after a forward pass with gradients, a step of any optimizer, `train()`, `eval()`, loading,
    a move or conversion, a write in place and an assigned weight. A write through `.data` during evaluation is not
    detected: call `eval()` after it. Copies and pickles start empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: Kept[Value] | None = None

    def __call__(self, weights: Sequence[Tensor], compute: Callable[[], Value]) -> Value:
        """Return the cached result of `compute`, or call it if the weights have changed."""
        if any(weight.is_meta for weight in weights):  # convolutions of torch read undefined memory for them
            raise RuntimeError("weights are on the device meta, expected the device of the input: do not offload them")
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            self.clear()  # an update of the weights follows gradients
            return compute()
        if any(weight.is_inference() for weight in weights):
            return compute()
        kept = self._kept
        if (
            kept is None
            or kept.num_steps != _optimizer_steps().so_far
            or not all(source.matches(weight) for source, weight in zip(kept.sources, weights, strict=True))
        ):
            sources = [Source(weight.detach(), weight._version) for weight in weights]
            num_steps = _optimizer_steps().so_far
            with torch.inference_mode(False), torch.no_grad():  # may be used where other weights have gradients
                kept = self._kept = Kept(compute(), sources, num_steps)
        return kept.value

    def clear(self) -> None:
        """Drop the value."""
        self._kept = None

    def train(self, mode: bool = True) -> Self:
        """Drop the value: weights may change between the two modes."""
        self.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:  # noqa: ANN401 - as the base's
        self.clear()
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the base's
        self.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class OptimizerSteps:
    """Number of steps of all optimizers in this process: fused optimizers do not change a weight's version."""

    so_far = 0

    def count(self, *_: object) -> None:
        """Count a step; called as a hook of optimizers."""
        self.so_far += 1


@cache
def _optimizer_steps() -> OptimizerSteps:
    steps = OptimizerSteps()
    register_optimizer_step_post_hook(steps.count)
    return steps


# Such a product mostly reads the weight. oneDNN reads it 1.5 to 3 times faster in its own blocked layout, so a second
# copy of the weight is cached in that layout: packed at the first step, dropped when the weight changes. So it is in
# float32, and in bfloat16 where the processor has its products. All other cases (a single row, training, other devices
# and types) use the plain product.
class PackedProduct(nn.Module):
    """Product with a weight; caches its packed copy."""

    def __init__(self) -> None:
        super().__init__()
        self._packed: Folded[Tensor] = Folded()

    def __call__(self, x_RLI: Tensor, weight_OI: Tensor, bias: Tensor | None) -> Tensor:
        """Return `torch.nn.functional.linear` of (R, L, I) or (R, I)."""
        if not _is_step(x_RLI, weight_OI):
            if torch.is_grad_enabled():
                self._packed.clear()  # an update of the weight follows gradients
            return F.linear(x_RLI, weight_OI, bias)
        pack: Callable[[], Tensor] = lambda: torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous())  # noqa: E731
        packed = self._packed((weight_OI,), pack)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x_RLI, packed, bias, "none", [], "")
        return product


class StepLinear(nn.Linear):
    """A linear layer of a text decoder."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self._product = PackedProduct()

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., O) for (..., I)."""
        return self._product(input, self.weight, self.bias)


def _is_step(x_RLI: Tensor, weight_OI: Tensor) -> bool:
    """Return whether each of several texts has one row, and the weight can be packed."""
    dtype = x_RLI.dtype if has_bfloat16_products(x_RLI.dtype) else torch.float32
    is_one_row_each = (x_RLI.dim() == 2 or (x_RLI.dim() == 3 and x_RLI.shape[1] == 1)) and len(x_RLI) > 1
    return (
        is_one_row_each
        and is_inference_on_cpu(x_RLI, weight_OI, dtype)
        and not weight_OI.is_inference()  # its changes could not be detected
        and _can_pack()
    )


@cache
def _can_pack() -> bool:
    """Return whether torch has oneDNN and the two operators, which `torch.compile` uses for the same purpose."""
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    has_library = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_library and all(hasattr(torch.ops.mkldnn, name) for name in operators)


class JoinedProduct(nn.Module):
    """Product with the weights of several layers end to end, of which it caches a copy."""

    def __init__(self) -> None:
        super().__init__()
        self._joined: Folded[tuple[Tensor, Tensor | None]] = Folded()

    def __call__(self, x_RLI: Tensor, layers: Sequence[nn.Linear]) -> Tensor | None:
        """Return the outputs (R, L, O) of the layers, end to end.

        None where they are to be called one by one: on a CPU, for several tokens of each text, outside inference, and
        if a layer is not a plain one of the type of x.
        """
        if not (is_accelerator(x_RLI.device) and x_RLI.shape[1] == 1 and _are_plain(x_RLI, layers)):
            return None
        weights: list[Tensor] = [layer.weight for layer in layers]
        optional: list[Tensor | None] = [layer.bias for layer in layers]
        biases = [layer for layer in optional if layer is not None]

        def join() -> tuple[Tensor, Tensor | None]:
            return torch.cat(weights), torch.cat(biases) if biases else None

        return F.linear(x_RLI, *self._joined([*weights, *biases], join))


def _are_plain(x_RLI: Tensor, layers: Sequence[nn.Linear]) -> bool:
    """Return whether the layers do no more than their product, in inference, and whether their copy can be cached."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled(x_RLI.device.type):
        return False
    are_ours = all(type(layer) is StepLinear for layer in layers)  # not LoRA layers
    kinds = {(layer.bias is None, layer.weight.dtype, layer.weight.is_inference()) for layer in layers}
    return are_ours and kinds in ({(True, x_RLI.dtype, False)}, {(False, x_RLI.dtype, False)})


# In half precision a CPU spends most of the time of a short row on bringing the weight into the layout of oneDNN, 6 of
# 7 ms for 56 frames of 768 channels. So it is kept in that layout; values are the same to the last bit.
class WeightNorm(nn.Module):
    """The two factors of a normalised weight: `original0` its norm for each tap, `original1` its direction."""

    def __init__(self, weight_OCK: Tensor) -> None:
        super().__init__()
        is_meta = weight_OCK.device.type == "meta"  # a norm on it imports torch's compiler, which takes a second
        length_11K = weight_OCK[:1, :1] if is_meta else weight_OCK.norm(dim=(0, 1), keepdim=True)
        self.original0 = nn.Parameter(length_11K)
        self.original1 = nn.Parameter(weight_OCK)

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
        return self._folded((self.norm.original0, self.norm.original1), self.norm.folded)


def _can_reorder(x: Tensor) -> bool:
    """Return whether a convolution is half precision on a CPU whose oneDNN has it, outside training and autocast."""
    supported = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    return (
        x.dtype in supported
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_convolution_pointwise", supported[x.dtype]))
        and bool(getattr(torch.ops.mkldnn, supported[x.dtype])())
    )
