"""Checks of objectives against a checkpoint, without its weights."""

from typing import TYPE_CHECKING

from raysp.errors import CheckpointError
from raysp.models.base.capabilities import Capability
from raysp.specs.objectives import CTC

if TYPE_CHECKING:
    from raysp.models.summary import CheckpointSummary

KEEP, BUILD = "keep", "build"
"""Values of `CTC.vocabulary`: that of the checkpoint, or one built from the texts."""


def check_objective(objective: CTC, checkpoint: "CheckpointSummary") -> None:
    """Raise CheckpointError if a checkpoint cannot be trained for an objective."""
    if Capability.TEXT_DECODER in checkpoint.gives:
        raise CheckpointError(
            f"{objective.checkpoint}: {checkpoint.architecture} has a text decoder; CTC needs an encoder: give the "
            "checkpoint of the encoder"
        )
    if objective.vocabulary == KEEP and Capability.CTC not in checkpoint.gives:
        raise CheckpointError(
            f"{objective.checkpoint}: {checkpoint.architecture} has no CTC head whose vocabulary could be kept; set "
            "objective.vocabulary='build', or to the url of a vocab.json"
        )


def described(objective: CTC) -> str:
    """Return an objective as text for users."""
    known = {KEEP: "vocabulary of the checkpoint", BUILD: "vocabulary built from the texts"}
    return f"{type(objective).__name__}, {known.get(objective.vocabulary, f'vocabulary {objective.vocabulary}')}"
