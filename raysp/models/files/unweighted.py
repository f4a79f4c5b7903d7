"""Models without weights: modules on the device "meta", for shapes and names alone."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_FILLING = {nn.init.normal_, nn.init.uniform_, torch.Tensor.normal_, torch.Tensor.uniform_}
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


def is_without_weights() -> bool:
    """Return whether this is called within `without_weights`."""
    return torch.get_default_device().type == "meta"
