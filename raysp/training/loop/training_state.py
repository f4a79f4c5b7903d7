"""State of a training that its commits hold: weights, moments of the optimiser, moving average."""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from raysp.models.base.modeling import Model
from raysp.storage.store import Store
from raysp.training.loop import state
from raysp.training.loop.averaging import MovingAverage
from raysp.training.loop.optimizing import Group
from raysp.training.sink import committed_steps
from raysp.training.sink.committed_steps import CommittedStep

MODEL, OPTIMIZER, AVERAGE = "model.safetensors", "optimizer.safetensors", "ema.safetensors"
"""Files of a committed step; the last one if there is a moving average."""


class TrainingState:
    """Weights with the state of their optimiser and their moving average, which share their memory with the model.

    Args:
        model: the model that is trained.
        optimizer: the optimiser.
        groups: its parameters, with their names.
        decay: share that the moving average of the weights keeps at each update; None: there is none.
        trained_only: whether weights that are not trained are left out, so that the checkpoint's stay.
    """

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        groups: Sequence[Group],
        *,
        decay: float | None = None,
        trained_only: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.groups = groups
        self.weights = state.weights(model, trained_only=trained_only)
        self.average = None if decay is None else MovingAverage(self.weights, decay)

    def update(self) -> None:
        """Take in the weights after an update."""
        if self.average is not None:
            self.average.update()

    def evaluated(self) -> contextlib.AbstractContextManager[None]:
        """Return a block in which the model has the weights that are evaluated: their moving average, if any."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def copied(self) -> dict[str, dict[str, Tensor]]:
        """Return copies of the tensors of a commit by the names of their files."""
        files = {MODEL: state.copied(self.weights), OPTIMIZER: state.moments(self.optimizer, self.groups)}
        return files if self.average is None else {**files, AVERAGE: self.average.state()}

    def load(self, store: Store, step: CommittedStep) -> None:
        """Go on from a committed step."""
        with committed_steps.local_file(store, step, MODEL) as file:
            state.load_tensors(self.weights, file)
        with committed_steps.local_file(store, step, OPTIMIZER) as file:
            state.load_moments(self.optimizer, self.groups, file)
        if self.average is not None:
            with committed_steps.local_file(store, step, AVERAGE) as file:
                self.average.load(file)

    def load_result(self, store: Store, step: CommittedStep | None) -> None:
        """Set the weights that a training ends with: of a committed step, or the last; or their moving average.

        Args:
            store: the sink.
            step: the step of the best evaluation; None: the last weights, which are loaded.
        """
        if self.average is not None:
            if step is not None:
                with committed_steps.local_file(store, step, AVERAGE) as file:
                    self.average.load(file)
            self.average.apply()
        elif step is not None:
            with committed_steps.local_file(store, step, MODEL) as file:
                state.load_tensors(self.weights, file)
