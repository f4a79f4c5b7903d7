"""Steps of training: micro-batches of one worker, one all-reduce, one update."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from raysp.models.base.placing import arithmetic
from raysp.training.data.micro_batches import MicroBatch, seed_micro_batch
from raysp.training.loop.optimizing import FlatGradients
from raysp.training.objectives.task import Criterion

Gathered = TypeVar("Gathered")


@dataclass(frozen=True)
class WorkerGroup:
    """The workers that train together, as one of them sees them: it alone, or the process group of Ray Train."""

    number: int = 0
    """Number of this worker."""
    count: int = 1
    """Number of all workers."""

    def add(self, values: Tensor) -> None:
        """Replace a tensor by its sum over the workers."""
        if self.count > 1:
            torch.distributed.all_reduce(values)

    def gather(self, value: Gathered) -> Sequence[Gathered]:
        """Return the values of all workers, in their order."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            torch.distributed.all_gather_object(values, value)
        return values


@dataclass(frozen=True)
class Update:
    """Result of a step, equal on all workers except `failed_rows`."""

    loss: float
    """Mean over rows or tokens."""
    num_rows: int
    norm: float
    """Norm of the gradients before clipping."""
    is_finite: bool
    """Whether loss and norm are finite; if not, no weight was changed."""
    stops: bool
    """Whether a worker asked to stop after this step."""
    failed_rows: Sequence[int] = ()
    """Rows of this worker whose loss, or else gradient, is not finite."""


_LOSS, _COUNT, _ROWS, _STOPS = _SUMS = range(4)


@dataclass(eq=False, repr=False)
class Training:
    """Steps of a training on one worker: its passes, the sum of the gradients of all workers, and the update.

    Attributes:
        criterion: model and loss.
        optimizer: over the parameters that are trained, with a factor `rate` in each group.
        seed: seed of all random numbers.
        clip: largest norm of the gradients; None: no limit.
        workers: the workers that train together.
        frozen: parameters that are not trained in the first steps.
        freeze_steps: number of these steps.
    """

    criterion: Criterion
    optimizer: torch.optim.Optimizer
    _: KW_ONLY
    seed: int
    clip: float | None = 1.0
    workers: WorkerGroup = field(default_factory=WorkerGroup)
    frozen: Sequence[torch.nn.Parameter] = ()
    freeze_steps: int = 0

    def __post_init__(self) -> None:
        """Collect the gradients of the parameters that are trained."""
        self._is_frozen: bool | None = None
        self.freeze(frozen=False)

    def freeze(self, *, frozen: bool) -> None:
        """Exclude `frozen` from the following steps, or train them again."""
        if frozen == self._is_frozen:
            return
        self._is_frozen = frozen
        for parameter in self.frozen:
            parameter.requires_grad_(not frozen)
            parameter.grad = None
        groups = self.optimizer.param_groups
        trained = [parameter for group in groups for parameter in group["params"] if parameter.requires_grad]
        self.gradients = FlatGradients(trained, len(_SUMS))

    @arithmetic(dtype="float32", device="cuda")
    def step(
        self, epoch: int, step: int, micro_batches: Sequence[MicroBatch], *, learning_rate: float, stops: bool = False
    ) -> Update:
        """Run this worker's micro-batches of a step, add the gradients of all workers, and update the weights.

        Args:
            epoch: number of the epoch.
            step: number of the step in the epoch.
            micro_batches: micro-batches of this worker, with the rows that could be decoded.
            learning_rate: of this step.
            stops: whether this worker asks to stop after the step.
        """
        self.gradients.buffer.zero_()
        # A worker without rows still takes part in the sum, for which other workers would wait.
        batches = [batch for batch in micro_batches if batch.rows]
        finite = [self._run(epoch, step, batch) for batch in batches]
        sums = self.gradients.sums
        # The wish to stop travels with the gradients, so that all workers stop after the same step.
        sums[_STOPS] = float(stops)
        self.workers.add(self.gradients.buffer)
        # By the count of all workers, whose shares differ; it is 0 if no row could be decoded.
        self.gradients.gradients.div_(sums[_COUNT].clamp(min=1))
        clipped = self.gradients.clip(self.clip)
        # The only values that the host waits for: all losses and gradients are on the device until here.
        read = torch.cat([sums, clipped[None], *(value.to(sums.dtype) for value in finite)]).tolist()
        loss, count, rows, stopping = read[: len(sums)]
        norm, *flags = read[len(sums) :]
        all_rows = [row for batch in batches for row in batch.rows]
        failed_rows = [row for row, is_finite in zip(all_rows, flags, strict=True) if not is_finite]
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        if is_finite and count:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate * group["rate"]
            self.optimizer.step()
        elif math.isfinite(loss) and count:
            # Each loss is finite, so a gradient is at fault, which only a pass over each row shows.
            failed_rows = self._without_finite_gradient(epoch, step, micro_batches)
        mean = loss / count if count else 0.0
        return Update(mean, round(rows), norm, is_finite, stopping > 0, failed_rows)

    def _run(self, epoch: int, step: int, batch: MicroBatch) -> Tensor:
        """Add the gradients and sums of a micro-batch, and return whether the loss of each row is finite (B,)."""
        # By place, not by worker: any number of workers draws the same numbers.
        seed_micro_batch(self.seed, epoch, step, batch.number)
        losses = self.criterion(batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        sums = self.gradients.sums
        sums[_LOSS] += losses.total.detach()
        sums[_COUNT] += losses.count
        sums[_ROWS] += len(batch.rows)
        return torch.isfinite(losses.rows_B)

    @property
    def has_finite_weights(self) -> bool:
        """Whether all weights that are trained are finite."""
        groups = self.optimizer.param_groups
        return all(bool(torch.isfinite(weight).all()) for group in groups for weight in group["params"])

    def _without_finite_gradient(self, epoch: int, step: int, micro_batches: Sequence[MicroBatch]) -> list[int]:
        """Run each row alone, and return the rows whose gradients are not finite; the gradients are lost."""
        faulty = []
        for batch in micro_batches:
            for place, row in enumerate(batch.rows):
                alone = replace(batch, rows=[row], waves=[batch.waves[place]], targets=[batch.targets[place]])
                self.gradients.buffer.zero_()
                self._run(epoch, step, alone)
                if not torch.isfinite(self.gradients.gradients).all():
                    faulty.append(row)
        return faulty
