"""Steps of training: micro-batches of one worker, one all-reduce, one update."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from raysp.training.batches import MicroBatch, Objective
from raysp.training.optimizing import FlatGradients, set_rate
from raysp.training.randomness import seed_micro_batch

Gathered = TypeVar("Gathered")


class Workers(Protocol):
    """The workers that train together."""

    number: int
    """Number of this worker."""
    count: int

    def add(self, values: Tensor) -> None:
        """Replace a tensor by its sum over the workers."""
        ...

    def gather(self, value: Gathered) -> Sequence[Gathered]:
        """Return the values of all workers, in their order."""
        ...


class OneWorker:
    """A worker that trains alone."""

    number, count = 0, 1

    def add(self, values: Tensor) -> None:
        """Do nothing: the sum is the worker's own."""

    def gather(self, value: Gathered) -> Sequence[Gathered]:
        """Return the worker's own value."""
        return [value]


@dataclass(frozen=True)
class Update:
    """Result of a step, the same on all workers."""

    loss: float
    """Mean over rows, tokens or frames."""
    num_rows: int
    norm: float
    """Norm of the gradients before clipping."""
    is_finite: bool
    """Whether loss and norm are finite; if not, no weight was changed."""
    stops: bool
    """Whether a worker asked to stop after this step."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Means of the objective's terms."""


_LOSS, _COUNT, _ROWS, _STOPS, _TERMS = range(5)


class Training:
    """Weights, optimiser and order of random numbers.

    Args:
        objective: model and loss.
        optimizer: over the parameters that are trained, with a factor `rate` in each group.
        seed: seed of all random numbers.
        clip: largest norm of the gradients; None: no limit.
        workers: the workers that train together.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        clip: float | None = 1.0,
        workers: Workers | None = None,
    ) -> None:
        self.objective = objective
        self.optimizer = optimizer
        self.seed = seed
        self.clip = clip
        self.workers = workers or OneWorker()
        self.failed_rows: list[int] = []
        """Rows of this worker whose loss, or else gradient, was not finite in the last step."""
        self._collect()

    def freeze(self, parameters: Iterable[torch.nn.Parameter], *, frozen: bool) -> None:
        """Exclude parameters of the optimiser from the following steps, or train them again."""
        for parameter in parameters:
            parameter.requires_grad_(not frozen)
            parameter.grad = None
        self._collect()

    def _collect(self) -> None:
        groups = self.optimizer.param_groups
        trained = [parameter for group in groups for parameter in group["params"] if parameter.requires_grad]
        self.gradients = FlatGradients(trained, _TERMS + len(self.objective.terms))

    def step(
        self, epoch: int, step: int, micro_batches: Sequence[MicroBatch], *, learning_rate: float, stops: bool = False
    ) -> Update:
        """Run this worker's micro-batches of a step, add the gradients of all workers, and update the weights.

        Args:
            epoch: number of the epoch.
            step: number of the step in the epoch.
            micro_batches: those of this worker, with the rows that could be decoded.
            learning_rate: of this step.
            stops: whether this worker asks to stop after the step.
        """
        self.gradients.zero()
        self.failed_rows = []
        for batch in micro_batches:
            if batch.rows:
                self._run(epoch, step, batch)
        sums = self.gradients.sums
        sums[_STOPS] = float(stops)
        self.workers.add(self.gradients.buffer)
        loss, count, rows, stopping, *of_terms = sums.tolist()
        if count:
            self.gradients.gradients.div_(count)
        norm = float(self.gradients.clip(self.clip))
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        if is_finite and count:
            set_rate(self.optimizer, learning_rate)
            self.optimizer.step()
        elif math.isfinite(loss) and count:
            self.failed_rows = self._without_finite_gradient(epoch, step, micro_batches)
        mean, *means = (one / count if count else 0.0 for one in (loss, *of_terms))
        terms = dict(zip(self.objective.terms, means, strict=True))
        return Update(mean, round(rows), norm, is_finite, stopping > 0, terms)

    def _run(self, epoch: int, step: int, batch: MicroBatch) -> None:
        seed_micro_batch(self.seed, epoch, step, batch.number)
        losses = self.objective(batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        sums = self.gradients.sums
        sums[_LOSS] += losses.total.detach()
        sums[_COUNT] += losses.count
        sums[_ROWS] += len(batch.rows)
        for place, name in enumerate(self.objective.terms, _TERMS):
            sums[place] += losses.terms[name].detach()
        finite = torch.isfinite(losses.rows_B).tolist()
        self.failed_rows += [row for row, is_finite in zip(batch.rows, finite, strict=True) if not is_finite]

    def _without_finite_gradient(self, epoch: int, step: int, micro_batches: Sequence[MicroBatch]) -> list[int]:
        """Run each row alone, and return the rows whose gradients are not finite; the gradients are lost."""
        found = []
        for batch in micro_batches:
            for place, row in enumerate(batch.rows):
                alone = replace(batch, rows=[row], waves=[batch.waves[place]], targets=[batch.targets[place]])
                self.gradients.zero()
                self._run(epoch, step, alone)
                if not torch.isfinite(self.gradients.gradients).all():
                    found.append(row)
        return found
