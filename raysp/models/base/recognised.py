"""Models of raysp as the Trainer of transformers recognises them, with attributes that other programs read.

`Trainer` saves configuration and tied weights of a model only if `isinstance(model, PreTrainedModel)`, a class without
a hook for other types. `isinstance` also asks `model.__class__`, so a model reports there a class that inherits from
its own and from `PreTrainedModel` once the module of the Trainer is imported (docs/decisions/039). That class has no
instances.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from torch import nn

from raysp.models.base.placing import OWN_CLASSES, check_attn_implementation


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
        """Enable gradient checkpointing, by a name that the Trainer calls: of every layer, without offloading."""
        if every_n_layers != 1 or offload:
            raise ValueError(
                f"every_n_layers is {every_n_layers!r} and offload {offload!r}, expected 1 and False: omit them"
            )
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether gradient checkpointing is on, by the name that the Trainer of transformers reads."""
        return self.is_gradient_checkpointing

    def _set_gradient_checkpointing(self, value: bool) -> None:
        parts: list[Any] = [module for module in self.modules() if hasattr(module, "gradient_checkpointing")]
        if not parts:
            raise ValueError(f"{type(self).__name__} does not support gradient checkpointing")
        for part in parts:
            part.gradient_checkpointing = value


TRAINER = "transformers.trainer"


class Recognised(nn.Module):
    """Base of models that the Trainer of transformers saves by their own `save_pretrained`."""

    _keys_to_ignore_on_save: list[str] | None = None
    """Read by the Trainer where a checkpoint lacks weights."""

    main_input_name: ClassVar[str] = "input_values"
    """First argument of `forward`."""

    def can_generate(self) -> bool:
        """Return whether the model writes text by `generate`."""
        return hasattr(self, "generate")

    def is_custom_code(self) -> bool:
        """Return True: names of weights are not those that transformers converts, for PEFT."""
        return True

    supports_gradient_checkpointing: ClassVar[bool] = True
    name_or_path: str = ""
    """Folder or hub id that the model was loaded from; PEFT writes it beside an adapter."""
    model_tags: list[str] | None = None
    """Tags for model cards."""

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of elements of the parameters; tied ones count once.

        Args:
            only_trainable: Count those that require gradients.
            exclude_embeddings: Leave out the weights of `nn.Embedding` modules.
        """
        tables = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if not (only_trainable and not parameter.requires_grad)
            and not (exclude_embeddings and id(parameter) in tables)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of parameters, and of buffers unless `return_buffers` is False."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def post_init(self) -> None:
        """Do nothing: weights are initialised when the outermost constructor returns."""

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the layer from hidden states to tokens of a text decoder; None for other models."""
        return None

    def enable_input_require_grads(self) -> None:
        """Do nothing: layers that are recomputed need no gradients of their inputs (`use_reentrant=False`)."""

    def disable_input_require_grads(self) -> None:
        """Do nothing, as `enable_input_require_grads`."""

    def add_model_tags(self, tags: str | Sequence[str]) -> None:
        """Add tags for model cards."""
        new = [tags] if isinstance(tags, str) else tags
        self.model_tags = list(dict.fromkeys([*(self.model_tags or ()), *new]))

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Check the name, without effect: torch chooses the kernel, and attention weights are always available."""
        check_attn_implementation(attn_implementation)

    def add_adapter(self, *args: Any, **options: Any) -> NoReturn:  # noqa: ANN401 - of transformers
        """Raise an error with the call for an adapter of PEFT.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.add_adapter is not provided: call peft.get_peft_model(model, config), and "
            "peft.PeftModel.from_pretrained(model, folder) for a saved adapter"
        )

    def resize_token_embeddings(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as of text decoders
        """Raise an error with the way to another vocabulary.

        Raises:
            NotImplementedError: Always; models with a text decoder override it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no embeddings of tokens: for a head over another vocabulary load the model by "
            "from_pretrained(..., vocab_size=len(tokenizer), ignore_mismatched_sizes=True)"
        )

    @classmethod
    def register_for_auto_class(cls, auto_class: object = None) -> NoReturn:
        """Raise an error with the ways to classes of one's own.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{cls.__name__}.register_for_auto_class is not provided: {OWN_CLASSES}")

    @property  # type: ignore[misc] # models are assigned no other class
    def __class__(self) -> Any:  # noqa: ANN401 - of a class, or one that inherits from it
        """The class of the model, or one that inherits from it and `PreTrainedModel`."""
        trainer = sys.modules.get(TRAINER)
        base = None if trainer is None else getattr(trainer, "PreTrainedModel", None)
        return type(self) if base is None else _both(type(self), base)  # type: ignore[arg-type] # classes are hashable

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:  # noqa: ANN401 - an index, as the base's
        """Return the class and state to copy or unpickle: pickles name the class, which is not the reported one."""
        return _new, (type(self),), self.__dict__


def _new(cls: type[Recognised]) -> Recognised:
    return cls.__new__(cls)


class _Unregistered:
    """Base that keeps hooks for subclasses from running."""

    def __init_subclass__(cls) -> None:
        pass


@functools.cache
def _both(cls: type, base: type) -> type:
    """Return a class that inherits from a model of raysp and from one of transformers, with the name of the former."""
    names = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(cls.__name__, (_Unregistered, cls, base), names)
