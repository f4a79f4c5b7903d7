"""Length and learning rates of a training."""

import math
from dataclasses import dataclass

from raysp.training.sink.committed_steps import Position
from raysp.training.specs.recipe import Schedule

HOLD = 0.4
"""Share of training for which "tri_stage" holds the highest rate after the warm-up."""


@dataclass(frozen=True)
class Course:
    """Length and learning rates of a training."""

    schedule: Schedule

    def progress(self, position: Position, epoch_steps: int) -> float:
        """Return the share that is done, exact although epochs differ by a few steps."""
        if self.schedule.steps is not None:
            return position.done / self.schedule.steps
        assert self.schedule.epochs is not None
        return (position.epoch + position.step / max(1, epoch_steps)) / self.schedule.epochs

    def is_done(self, position: Position) -> bool:
        """Return whether no step is left."""
        epochs, steps = self.schedule.epochs, self.schedule.steps
        return (steps is not None and position.done >= steps) or (epochs is not None and position.epoch >= epochs)

    def rate(self, progress: float) -> float:
        """Return the learning rate at a share of the training, from 0 to 1."""
        shape, warmup, final = self.schedule.shape, self.schedule.warmup, self.schedule.final
        rest = min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))
        factor = 1.0
        if progress < warmup:
            factor = progress / warmup
        elif shape == "linear":
            factor = 1 + (final - 1) * rest
        elif shape == "cosine":
            factor = final + (1 - final) * (1 + math.cos(math.pi * rest)) / 2
        elif shape == "tri_stage":  # holds the rate, then decays it exponentially
            decay = (progress - warmup - HOLD) / max(1e-9, 1 - warmup - HOLD)
            factor = math.exp(math.log(final) * min(1.0, max(0.0, decay)))
        return self.schedule.learning_rate * factor
