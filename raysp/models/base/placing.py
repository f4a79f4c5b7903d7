"""Data type, device and attention of a model, the flags of torch by which it computes, and models without weights.

The flags belong to the process and are set and restored here alone. torch has two interfaces to the flags of TF32,
`allow_tf32` and since 2.9 `fp32_precision`. Reading the older one raises if the newer one says otherwise. So both are
set, the older one first.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from raysp.bounds import plain
from raysp.devices import is_accelerator
from raysp.errors import CheckpointError

TF32 = "tf32"
"""Name of float32 weights and activations whose products and convolutions may round their inputs to ten bits."""


class _Flag(NamedTuple):
    read: Callable[[], object]
    write: Callable[[Any], object]

    def value(self) -> object:
        try:
            return self.read()
        except RuntimeError:
            return _UNREADABLE


def weights_dtype(dtype: str) -> str:
    """Return the dtype of weights and activations of arithmetic by name: float32 for "tf32"."""
    return "float32" if dtype == TF32 else dtype


@contextmanager
def arithmetic(*, dtype: str, device: str) -> Iterator[None]:
    """Compute in the arithmetic of a dtype within the block, in all threads.

    Products and convolutions in float32 round nothing (no TF32, and no bfloat16 on a CPU), also those within a pass in
    half precision; with "tf32" they may use TF32. Besides, in half precision and in TF32 on a GPU convolutions use a
    deterministic kernel without a search. In half precision there sums stay in float32, the inner dimension is not
    split among thread blocks, and attention uses the same kernel for all shapes.

    Blocks may be nested, and open in several threads at once: then TF32 is used only if all of them allow it. After the
    last one, also after an error, flags are as before the first.
    """
    demands = dict(_ROUNDED if dtype == TF32 else _EXACT)
    if dtype != "float32" and is_accelerator(device):
        demands |= _STEADY
        if dtype != TF32:
            demands |= dict.fromkeys(_REDUCTIONS, (False, False))
            demands |= {"flash_sdp": False, "cudnn_sdp": False, "mem_efficient_sdp": True, "math_sdp": True}
    with _flags(demands):
        yield


@contextmanager
def steady_convolutions() -> Iterator[None]:
    """Use a deterministic kernel of cuDNN without a search within the block."""
    with _flags(_STEADY):
        yield


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Use no kernel of cuDNN within the block."""
    with _flags({"backends.cudnn.enabled": False}):
        yield


_OLDER = ("backends.cuda.matmul.allow_tf32", "backends.cudnn.allow_tf32")
_ON_GPUS = tuple(f"backends.{name}.fp32_precision" for name in ("cuda.matmul", "cudnn.conv", "cudnn.rnn"))
_ON_CPUS = tuple(f"backends.mkldnn.{name}.fp32_precision" for name in ("matmul", "conv", "rnn"))
_EXACT: Mapping[str, object] = {
    "float32_matmul_precision": "highest",
    **dict.fromkeys(_OLDER, False),
    **dict.fromkeys((*_ON_GPUS, *_ON_CPUS), "ieee"),
}
_ROUNDED: Mapping[str, object] = {
    "float32_matmul_precision": "high",
    **dict.fromkeys(_OLDER, True),
    **dict.fromkeys((*_ON_GPUS, *_ON_CPUS), TF32),
}
_STEADY: Mapping[str, object] = {"backends.cudnn.benchmark": False, "backends.cudnn.deterministic": True}
_REDUCTIONS = tuple(f"backends.cuda.matmul.allow_{kind}_reduced_precision_reduction" for kind in ("bf16", "fp16"))
_UNREADABLE = object()
"""Value of an older flag that contradicts the newer flags."""

_lock = threading.Lock()
_open: list[Mapping[str, object]] = []
_before: dict[str, object] = {}
"""Values of flags that a block demands, from before."""


@contextmanager
def _flags(demands: Mapping[str, object]) -> Iterator[None]:
    with _lock:
        _open.append(demands)
        _apply()
    try:
        yield
    finally:
        with _lock:
            _open[:] = [other for other in _open if other is not demands]
            _apply()


def _apply() -> None:
    """Set each flag to the value that the open blocks demand, or else to its original value."""
    flags: dict[str, object] = {}
    # Blocks that allow TF32 first.
    for demands in sorted(_open, key=lambda block: block.get("float32_matmul_precision") == "highest"):
        flags |= demands
    for name in flags:
        if name not in _before:
            _before[name] = _FLAGS[name].value()
    for name, flag in _FLAGS.items():
        if name not in _before:
            continue
        value = flags.get(name, _before[name])
        if value is not _UNREADABLE and flag.value() != value:
            flag.write(value)
    for name in [name for name in _before if name not in flags]:
        del _before[name]


def _attribute(path: str) -> _Flag:
    """Return the flag at a path below `torch`."""
    *parents, name = path.split(".")
    holder: Any = torch
    for parent in parents:
        holder = getattr(holder, parent)
    return _Flag(lambda: getattr(holder, name), lambda value: setattr(holder, name, value))


def _reduction(path: str) -> _Flag:
    """Return a flag of reduced sums: a pair of whether they are allowed, and whether they may be split."""
    reduced, split = _attribute(path), _attribute(f"{path}_split_k")
    try:
        split.value()
    except AttributeError:  # older releases of torch have one flag
        return _Flag(lambda: (reduced.read(), False), lambda value: reduced.write(value[0]))
    return _Flag(lambda: (reduced.read(), split.read()), reduced.write)


def _all_flags() -> dict[str, _Flag]:
    """Return the flags of torch; older interfaces first, since they change newer flags."""
    flags = {"float32_matmul_precision": _Flag(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)}
    of_cudnn = tuple(f"backends.cudnn.{name}" for name in ("benchmark", "deterministic", "enabled"))
    flags |= {path: _attribute(path) for path in (*_OLDER, *of_cudnn, *_ON_GPUS, *_ON_CPUS)}
    flags |= {path: _reduction(path) for path in _REDUCTIONS}
    for kind in ("flash_sdp", "cudnn_sdp", "mem_efficient_sdp", "math_sdp"):
        flags[kind] = _Flag(
            getattr(torch.backends.cuda, f"{kind}_enabled"), getattr(torch.backends.cuda, f"enable_{kind}")
        )
    return flags


_FLAGS = _all_flags()


Built = TypeVar("Built", bound=nn.Module)

_FILLING = {nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_, torch.Tensor.normal_, torch.Tensor.uniform_}
_DRAWING = {torch.randn, torch.rand}


class _WithoutValues(TorchFunctionMode):
    """Skip random initialisation of tensors on "meta", which hold no values.

    For such a call torch imports its compiler, which takes longer than all other work on a model without weights.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - as the function's
        if func in _FILLING:
            return args[0] if args else (kwargs or {})["tensor"]
        return (torch.empty if func in _DRAWING else func)(*args, **(kwargs or {}))


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Construct modules without values within the block; `from_pretrained` reads the shapes of weights alone."""
    with torch.device("meta"), _WithoutValues():
        yield


def built(cls: Callable[..., Built], config: object, where: object) -> Built:
    """Return a model without values, so that a configuration of any sizes allocates nothing.

    Raises:
        CheckpointError: no model can be built of these sizes.
    """
    try:
        with without_weights():
            return cls(config)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    except (RuntimeError, TypeError, ArithmeticError) as error:
        reason = plain(str(error).partition("\n")[0])
        raise CheckpointError(f"{where}: no model can be built from it ({reason}): copy the file again") from error


def is_without_weights() -> bool:
    """Return whether this is called within `without_weights`."""
    return torch.get_default_device().type == "meta"


ATTN_IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")
DeviceMap = str | int | torch.device | Mapping[str, str | int | torch.device] | None


def as_dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    """Return a floating-point dtype from a dtype or a name; None for None or "auto"."""
    if value is None or value == "auto":
        return None
    dtype = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"dtype is {value!r}, expected 'auto', 'float32', 'bfloat16' or 'float16'")
    return dtype


def one_device(device: torch.device | str | None, device_map: DeviceMap) -> torch.device:
    """Return the device named by either argument; "auto" is the GPU if there is one."""
    if device_map is not None and device is not None:
        raise ValueError(f"both device {device!r} and device_map {device_map!r} given, expected one of them")
    if isinstance(device_map, Mapping):
        if set(device_map) != {""}:
            raise ValueError(
                f"device_map is {dict(device_map)!r}, expected one device for the whole model: {{'': ...}}"
            )
        device_map = device_map[""]
    place = device if device_map is None else device_map
    if place == "auto":
        place = "cuda" if torch.cuda.is_available() else "cpu"
    if place is None and is_without_weights():
        place = "meta"
    try:
        return torch.device("cuda", place) if isinstance(place, int) else torch.device(place or "cpu")
    except RuntimeError as error:
        raise ValueError(f"device is {place!r}, expected 'auto', 'cpu' or 'cuda:0'") from error


def check_attn_implementation(name: str | None) -> None:
    """Raise ValueError unless the name is one of `ATTN_IMPLEMENTATIONS`."""
    if name is not None and name not in ATTN_IMPLEMENTATIONS:
        raise ValueError(f"attn_implementation is {name!r}, expected one of {', '.join(ATTN_IMPLEMENTATIONS)}")
