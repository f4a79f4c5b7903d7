"""The outputs of raysp: the classes of the files in this folder."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.specs import outputs
from raysp.specs.outputs.output import Output

if TYPE_CHECKING:
    from raysp.models.labelled_passes import CheckpointSummary


def _classes() -> Iterator[type[Output]]:
    for file in iter_modules(outputs.__path__):
        module = import_module(f"{outputs.__name__}.{file.name}")
        classes = (cls for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == module.__name__)
        yield from (cls for cls in classes if issubclass(cls, Output) and cls is not Output)


OUTPUTS = sorted((output for cls in _classes() for output in cls.examples()), key=lambda o: o.text_column is None)
"""Examples of the outputs of raysp; transcripts first, then by file."""


def outputs_for(checkpoint: "CheckpointSummary") -> tuple[str, ...]:
    """Return the names of the outputs that a checkpoint supports, in the order of its capabilities."""
    return outputs_of(checkpoint.gives, checkpoint)


def outputs_of(gives: Iterable[Capability], checkpoint: "CheckpointSummary | None" = None) -> tuple[str, ...]:
    """Return the names of the outputs that need one of the capabilities, in order, and that a checkpoint supports."""
    needing = (output for capability in gives for output in OUTPUTS if capability in output.needs)
    supported = (output for output in needing if checkpoint is None or _is_supported(output, checkpoint))
    return tuple(dict.fromkeys(type(output).__name__ for output in supported))


def _is_supported(output: Output, checkpoint: "CheckpointSummary") -> bool:
    try:
        output.check(checkpoint)
    except CheckpointError:
        return False
    return True
