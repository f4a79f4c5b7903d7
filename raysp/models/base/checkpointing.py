"""Checkpointing of activations: layers are recomputed in the backward pass of training."""

from collections.abc import Mapping
from typing import Any

from torch import nn


class Checkpointing(nn.Module):
    """Base of models whose parts may recompute their activations."""

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, object] | None = None) -> None:
        """Recompute layers in the backward pass of training: less memory, more time.

        Only the non-reentrant variant of torch is supported (`use_reentrant=False`).
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

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, object] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Do the same by the name that the Trainer of transformers calls; every layer, without offloading."""
        if every_n_layers != 1 or offload:
            raise ValueError(
                f"every_n_layers is {every_n_layers!r} and offload {offload!r}, expected 1 and False: omit them"
            )
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    @property
    def is_activation_checkpointing(self) -> bool:
        """The same by the name that the Trainer of transformers reads."""
        return self.is_gradient_checkpointing

    def _set_gradient_checkpointing(self, value: bool) -> None:
        parts: list[Any] = [module for module in self.modules() if hasattr(module, "gradient_checkpointing")]
        if not parts:
            raise ValueError(f"{type(self).__name__} does not support gradient checkpointing")
        for part in parts:
            part.gradient_checkpointing = value
