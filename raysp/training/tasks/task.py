"""Protocol of tasks: targets, model, loss, predictions and exported files of one objective."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import nn

from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import Columns, Comparison
from raysp.models.base.modeling import Model
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer
from raysp.specs.values import JsonValue
from raysp.text.targets import Targets
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.recipe import Evaluation

WORST_ROWS = 20
"""Wrong rows that an evaluation keeps."""


class Prediction(NamedTuple):
    """Text, class or embedding that a model predicts for a row, with its loss."""

    text: str
    """Text or class."""
    loss: float | None
    """Loss of the row; None: it has no target."""
    score: float | None = None
    """Probability of a class."""
    vector: npt.NDArray[np.float32] | None = None
    """Embedding of a speaker."""


class PredictedRows(NamedTuple):
    """Rows of an evaluation, in one order."""

    references: Sequence[str]
    predictions: Sequence[Prediction]
    columns: Columns
    evaluation: Evaluation
    bootstrap: Bootstrap | None
    """Resampling of the intervals; None: the usual one."""

    @property
    def texts(self) -> list[str]:
        """Predicted texts or classes."""
        return [row.text for row in self.predictions]

    @property
    def scores(self) -> list[float | None]:
        """Probabilities of the predictions."""
        return [row.score for row in self.predictions]


class Task(Protocol):
    """Parts of a training that depend on its objective. Pickled for workers, so folders come from the plan argument."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the model card."""
        ...

    @property
    def tokenizer(self) -> "TextOrCTCTokenizer | None":
        """Tokenizer of the exported checkpoint; None: it has none."""
        ...

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Everything of the objective that affects the index of a shard."""
        ...

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """Meaning of the model's outputs, such as `{"vocabulary": {...}}`."""
        ...

    @property
    def digest(self) -> str:
        """Hash of `outputs`, part of the fingerprint."""
        ...

    def settled(self, counts: Mapping[str, int]) -> "Task":
        """Return the task with the vocabulary or classes of a corpus, unless the objective sets them.

        Args:
            counts: counts of `Targets` over the corpus.

        Raises:
            PlanError: the corpus has too few of them.
        """
        ...

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return facts of the targets for users, as text by name; arguments as for `settled`."""
        ...

    def targets(self) -> Targets:
        """Return the targets; without a vocabulary or classes yet, their ids are provisional."""
        ...

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of the shortest input of the model that is trained."""
        ...

    def objective(self, plan: TrainingPlan) -> Objective:
        """Return the loss with its model, in training mode on the plan's device, without its frozen parts.

        Raises:
            PlanError: a field of `masks` does not exist.
            CheckpointError: the checkpoint cannot be loaded.
        """
        ...

    def frozen_at_first(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the parameters that are frozen for `freeze_steps`."""
        ...

    def shown(self, target: Sequence[float]) -> str:
        """Return a target as text."""
        ...

    def reference(self, value: object) -> str | None:
        """Return the reference of a value, for comparisons; None: a row with this value is not evaluated."""
        ...

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the predictions for rows, in evaluation mode; a target may be empty."""
        ...

    def compare(self, rows: PredictedRows) -> Comparison:
        """Return the metrics of predictions."""
        ...


@runtime_checkable
class DescribesRows(Protocol):
    """Task whose exported checkpoint has files that are computed from rows of the training."""

    @property
    def described_rows(self) -> int:
        """Number of rows that suffice."""
        ...

    def files(self, objective: Objective, batches: Iterable[MicroBatch]) -> Mapping[str, str]:
        """Return the contents of the files by name, by the trained model; each micro-batch has rows."""
        ...
