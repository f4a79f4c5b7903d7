"""Models whose parts may recompute their activations in training."""

from collections.abc import Mapping
from typing import Any

from torch import nn


class Checkpointing(nn.Module):
    """Base of models whose parts may recompute their activations."""

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, object] | None = None) -> None:
        """Recompute layers in the backward pass of training: less memory, more time.

        Only the non-reentrant variant of torch is supported (`use_reentrant=False`).

        Raises:
            ValueError: `use_reentrant` is True, or no part of the model can recompute its activations.
        """
        if (gradient_checkpointing_kwargs or {}).get("use_reentrant", False):
            raise ValueError("use_reentrant is True, expected False: omit it")
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Store all activations again."""
        self._set_gradient_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether any part recomputes activations."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def _set_gradient_checkpointing(self, value: bool) -> None:
        parts: list[Any] = [module for module in self.modules() if hasattr(module, "gradient_checkpointing")]
        if not parts:
            raise ValueError(f"{type(self).__name__} does not support gradient checkpointing")
        for part in parts:
            part.gradient_checkpointing = value
