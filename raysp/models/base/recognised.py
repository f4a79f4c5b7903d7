"""Models of raysp as the Trainer of transformers recognises them.

`Trainer` saves configuration and tied weights of a model only if `isinstance(model, PreTrainedModel)`, a class without
a hook for other types. `isinstance` also asks `model.__class__`, so a model reports there a class that inherits from
its own and from `PreTrainedModel` once the module of the Trainer is imported (docs/decisions/039). That class has no
instances.
"""

import functools
import sys
from typing import Any, ClassVar

TRAINER = "transformers.trainer"


class Recognised:
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

    @property  # type: ignore[misc] # models are assigned no other class
    def __class__(self) -> Any:  # noqa: ANN401 - of a class, or one that inherits from it
        """The class of the model, or one that inherits from it and `PreTrainedModel`."""
        trainer = sys.modules.get(TRAINER)
        base = None if trainer is None else getattr(trainer, "PreTrainedModel", None)
        return type(self) if base is None else _both(type(self), base)  # type: ignore[arg-type] # classes are hashable

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:  # noqa: ANN401 - an index, as the base's
        """Return how to copy or unpickle it: pickles name the class, which is not the reported one."""
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
