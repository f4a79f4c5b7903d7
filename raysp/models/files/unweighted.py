"""Models without weights: modules on the device "meta", for shapes and names alone."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from raysp.bounds import plain
from raysp.errors import CheckpointError

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
