"""Reads of tensors of the device, as mutants of `tests.device.mutations` add them to what functions return."""

from collections.abc import Callable
from typing import Any

from tests.device.stand_in import OnDevice

KINDS: dict[str, Callable[[OnDevice], object]] = {
    "item": lambda tensor: tensor.reshape(-1)[0].item(),
    "tolist": lambda tensor: tensor.tolist(),
    "cpu": lambda tensor: tensor.cpu(),
    "float": lambda tensor: float(tensor.reshape(-1)[0]),
    "bool": lambda tensor: bool(tensor.reshape(-1)[0]),
}
"""Reads by name; the host waits in each."""


def read(kind: str, value: Any) -> Any:
    """Read the first tensor of the device within a value, and return the value."""
    tensor = first(value)
    if tensor is not None and tensor.numel():
        KINDS[kind](tensor.detach())
    return value


def first(value: Any, depth: int = 3) -> OnDevice | None:
    """Return the first tensor of the device within a value, of nested ones to a depth; None if it has none."""
    if isinstance(value, OnDevice):
        return value
    if isinstance(value, dict):
        value = [*value.values()]
    elif hasattr(type(value), "__dataclass_fields__") and hasattr(value, "__dict__"):
        value = [*vars(value).values()]
    if depth and isinstance(value, list | tuple):
        return next((found for one in value if (found := first(one, depth - 1)) is not None), None)
    return None
