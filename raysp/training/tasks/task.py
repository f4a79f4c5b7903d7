"""Protocol of tasks: targets, model, loss, outputs and exported files of one objective."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from raysp.evaluation.comparing import Task as Compared
from raysp.models.base.modeling import Model
from raysp.models.loading import LoadedCheckpoint
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer
from raysp.ops.forward import OutputOp
from raysp.specs.values import JsonValue
from raysp.text.targets import Targets
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.planning.training_plan import TrainingPlan


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

    @property
    def compared(self) -> Compared:
        """Kind of the labels by which weights are evaluated."""
        ...

    def label_ops(self, loaded: LoadedCheckpoint) -> Sequence[OutputOp]:
        """Return the ops of the outputs by which weights are evaluated, for the model in memory.

        Their first columns are a text or a class and its score; then follows the embedding of a speaker, if any.
        """
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
