"""The outputs of raysp."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from raysp.errors import CheckpointError
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

OUTPUTS: tuple[Output, ...] = (
    *(Transcript(), Align("text"), Embedding(), Classes(), Classes(top_k="all"), Segments(), Speech(), Signals()),
)
"""The outputs of raysp, with their defaults; and numbers of a regression, which have no first one."""


def outputs_for(checkpoint: "CheckpointSummary") -> tuple[str, ...]:
    """Return the names of the outputs that a checkpoint supports, in the order of its capabilities."""
    return _names(one for one in _needing(checkpoint.gives) if _is_supported(one, checkpoint))


def outputs_of(gives: "Iterable[Capability]") -> tuple[str, ...]:
    """Return the names of the outputs that need one of some capabilities, in the order of the capabilities."""
    return _names(_needing(gives))


def _needing(gives: "Iterable[Capability]") -> Iterator[Output]:
    return (one for capability in gives for one in OUTPUTS if capability in one.needs)


def _is_supported(output: Output, checkpoint: "CheckpointSummary") -> bool:
    try:
        output.check(checkpoint)
    except CheckpointError:
        return False
    return True


def _names(outputs: Iterable[Output]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(type(one).__name__ for one in outputs))
