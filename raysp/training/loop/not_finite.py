"""Steps whose loss or gradient is not finite: rows or weights at fault, and what to do."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from raysp.errors import RunError
from raysp.training.planning.corpus_index import CorpusIndex
from raysp.words import listed

GREW = 10.0
"""Factor over the lowest loss, or over 1 if that is greater, from which a loss says that the training diverged."""
MOST_ROWS = 10
"""Rows that a message names."""


class NotFinite(NamedTuple):
    """A step whose loss or gradient is not finite."""

    message: str
    """Place of the step, with loss and norm."""
    rows: Sequence[int]
    """Rows whose loss, or else gradient, is not finite alone."""
    num_rows: int
    """Rows of the step, of all workers."""
    grew: bool
    """Whether weights are not finite, or the loss had grown without bound before."""
    history: str
    """The losses before it, as text."""

    @property
    def is_diverged(self) -> bool:
        """Whether the weights are at fault: `grew`, or no row of several has a finite loss and gradient."""
        return self.grew or 1 < self.num_rows <= len(self.rows)


class NotFiniteError(RunError):
    """A step whose loss or norm is not finite. `fault` lists the rows at fault of all workers, if known."""

    def __init__(self, fault: NotFinite) -> None:
        super().__init__(fault.message)
        self.fault = fault

    def __reduce__(self) -> tuple[type["NotFiniteError"], tuple[NotFinite]]:
        """Travel with the fault, not the message alone."""
        return NotFiniteError, (self.fault,)


def has_grown(losses: Sequence[tuple[int, float]]) -> bool:
    """Return whether the last loss is far above the lowest, or not finite.

    Args:
        losses: steps in order, each with its loss.
    """
    if not losses:
        return False
    last, lowest = losses[-1][1], min(loss for _, loss in losses)
    return not math.isfinite(last) or last > GREW * max(abs(lowest), 1.0)


def described_losses(losses: Sequence[tuple[int, float]]) -> str:
    """Return a sentence on the course of the loss; arguments as for `has_grown`."""
    if not losses:
        return "No step was done before it: the weights with which the training begins may be at fault"
    (step, lowest), (last_step, last) = min(losses, key=lambda pair: pair[1]), losses[-1]
    if last <= lowest:
        return f"The loss was finite until step {last_step:,}, with {last:.4g}, and had not grown"
    return f"The loss grew since step {step:,}, from {lowest:.4g} to {last:.4g} at step {last_step:,}"


def explained(fault: NotFinite, corpus: CorpusIndex) -> str:
    """Return the message for the user, with the rows at fault unless the training diverged, and a remedy."""
    if fault.is_diverged:
        share = (
            f"no row of the {fault.num_rows:,} of the step has a finite loss and gradient"
            if len(fault.rows) >= fault.num_rows > 0
            else "the loss had grown without bound, or weights are not finite"
        )
        return (
            f"{fault.message}. The training diverged: {share}, so the weights are at fault and not the rows. "
            f"{fault.history}. Lower schedule.learning_rate or schedule.clip, or raise schedule.warmup, and use "
            "another sink, or start over with --restart; the committed steps remain, and these weights are not "
            "committed"
        )
    places = listed([f"{shard}:{row}" for shard, row in map(corpus.place_of, fault.rows)], MOST_ROWS)
    cause = f"at fault: {places}" if places else "the losses and gradients of each row alone are finite"
    return (
        f"{fault.message}; {cause}. Lower schedule.learning_rate, or leave these rows out; the training continues from "
        "its last committed step"
    )
