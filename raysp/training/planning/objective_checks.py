"""Checks of objectives against a checkpoint, without its weights."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.capabilities import Capability
from raysp.errors import CheckpointError, PlanError
from raysp.labelling.planning.surveying import holds_text
from raysp.training.specs.objectives import CTC, Classify, Objective, Seq2Seq, Speakers

if TYPE_CHECKING:
    from raysp.models.labelled_passes import CheckpointSummary

KEEP, BUILD = "keep", "build"
"""Values of `CTC.vocabulary`: the checkpoint's, or a vocabulary built from the texts."""


def check_objective(objective: Objective, checkpoint: "CheckpointSummary") -> None:
    """Check an objective and its checkpoint.

    Raises:
        CheckpointError: the checkpoint cannot be trained for the objective.
        PlanError: a package is not installed.
    """
    if objective.lora is not None and find_spec("peft") is None:
        raise PlanError(
            "objective.lora needs the package peft, which is not installed; pip install 'raysp[lora]', or leave the "
            "field out"
        )
    if Capability.TRANSDUCER in checkpoint.gives:
        raise CheckpointError(
            f"{objective.checkpoint}: {checkpoint.architecture} is a transducer, which {type(objective).__name__} "
            "cannot train: choose a checkpoint of another architecture"
        )
    writes_text = Capability.TEXT_DECODER in checkpoint.gives
    if isinstance(objective, Seq2Seq) and objective.decoder is None:
        if not writes_text:
            raise CheckpointError(
                f"{objective.checkpoint}: {checkpoint.architecture} has no text decoder; set objective.decoder to a "
                "text model with one"
            )
        return
    if writes_text:
        raise CheckpointError(
            f"{objective.checkpoint}: {checkpoint.architecture} has a text decoder; "
            f"{type(objective).__name__} needs an encoder: give the checkpoint of the encoder"
        )
    if isinstance(objective, CTC) and objective.vocabulary == KEEP and Capability.CTC not in checkpoint.gives:
        raise CheckpointError(
            f"{objective.checkpoint}: {checkpoint.architecture} has no CTC head whose vocabulary could be kept; set "
            "objective.vocabulary='build' or 'bpe:500', or to the url of a vocab.json"
        )


def described(objective: Objective) -> str:
    """Return an objective as text for users."""
    lora, adapter = objective.lora, getattr(objective, "adapter", None)
    more = f", LoRA of rank {lora.rank}" if lora else f", adapter of {adapter}" if adapter else ""
    return _described(objective) + more + (", from random weights" if objective.random_weights else "")


def _described(objective: Objective) -> str:
    if isinstance(objective, Classify | Speakers):
        return f"{type(objective).__name__}, of the column {objective.column}"
    if isinstance(objective, Seq2Seq):
        return "Seq2Seq, " + (f"decoder {objective.decoder}" if objective.decoder else "decoder of the checkpoint")
    texts = {KEEP: "vocabulary of the checkpoint", BUILD: "vocabulary built from the texts"}
    return f"CTC, {texts.get(objective.vocabulary, f'vocabulary {objective.vocabulary}')}"


def check_targets(objective: Objective, column: str | None, url: str, schema: pa.Schema) -> None:
    """Check the type of a column of targets.

    Args:
        objective: the objective.
        column: name of the column; None: there is none.
        url: name of the source for messages.
        schema: columns of the source.

    Raises:
        PlanError: the targets of the objective are of another type.
    """
    if column is None or not isinstance(objective, Classify | Speakers):
        return  # texts are checked with the source
    kind = schema.field(column).type
    if not (holds_text(kind) or pa.types.is_integer(kind.value_type if isinstance(kind, pa.DictionaryType) else kind)):
        raise PlanError(
            f"{url}: column {column!r} holds {kind}, expected strings or integers, one for each row: choose another "
            "objective.column, or write the targets as such"
        )
