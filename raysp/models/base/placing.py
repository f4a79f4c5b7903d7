"""Data type, device and attention of a model, as `from_pretrained` is given them."""

from collections.abc import Mapping

import torch

from raysp.errors import CheckpointError
from raysp.models.files.unweighted import is_without_weights

ATTN_IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")
OWN_CLASSES = (
    "code that comes with a checkpoint is never run: import the class in the program, or install it as a package with "
    "an entry point (docs/extend.md)"
)
DeviceMap = str | int | torch.device | Mapping[str, str | int | torch.device] | None


def as_dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    """Return a floating-point dtype, given itself or its name; None for None or "auto"."""
    if value is None or value == "auto":
        return None
    found = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise CheckpointError(f"dtype is {value!r}, expected 'auto', 'float32', 'bfloat16' or 'float16'")
    return found


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
    wanted = device if device_map is None else device_map
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted is None and is_without_weights():
        wanted = "meta"
    try:
        return torch.device("cuda", wanted) if isinstance(wanted, int) else torch.device(wanted or "cpu")
    except RuntimeError as error:
        raise ValueError(f"device is {wanted!r}, expected 'auto', 'cpu' or 'cuda:0'") from error


def check_attn_implementation(name: str | None) -> None:
    """Raise ValueError unless the name is one of `ATTN_IMPLEMENTATIONS`."""
    if name is not None and name not in ATTN_IMPLEMENTATIONS:
        raise ValueError(f"attn_implementation is {name!r}, expected one of {', '.join(ATTN_IMPLEMENTATIONS)}")
