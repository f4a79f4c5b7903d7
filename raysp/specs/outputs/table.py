"""The outputs of raysp."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from raysp.specs.outputs.align import Align
from raysp.specs.outputs.classes import Classes, Segments
from raysp.specs.outputs.embedding import Embedding
from raysp.specs.outputs.output import Output
from raysp.specs.outputs.signals import Signals
from raysp.specs.outputs.speech import Speech
from raysp.specs.outputs.transcript import Transcript

if TYPE_CHECKING:
    from raysp.models.base.capabilities import Capability
    from raysp.models.summary import CheckpointSummary

OUTPUTS: tuple[Output, ...] = (Transcript(), Align("text"), Embedding(), Classes(), Segments(), Speech(), Signals())
"""The outputs of raysp, with their defaults."""


def outputs_for(checkpoint: "CheckpointSummary") -> tuple[str, ...]:
    """Return the names of the outputs that a checkpoint supports, in the order of its capabilities."""
    return tuple(name for name in outputs_of(checkpoint.gives) if _is_supported(name, checkpoint))


def _is_supported(name: str, checkpoint: "CheckpointSummary") -> bool:
    from raysp.errors import CheckpointError

    [output] = [one for one in OUTPUTS if type(one).__name__ == name]
    try:
        output.check(checkpoint)
    except CheckpointError:
        return False
    return True


def outputs_of(gives: "Iterable[Capability]") -> tuple[str, ...]:
    """Return the names of the outputs that need one of some capabilities, in the order of the capabilities."""
    found = [type(one).__name__ for capability in gives for one in OUTPUTS if capability in one.needs]
    return tuple(dict.fromkeys(found))
