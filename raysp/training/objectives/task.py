"""Tasks: the targets, the model and the loss of an objective, and what follows from them for texts and for classes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from raysp.errors import PlanError, RunError
from raysp.evaluation.comparing import Task as Compared
from raysp.models.base.modeling import Model
from raysp.models.loading import LoadedCheckpoint, load_feature_extractor
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer
from raysp.ops.forward import OutputOp
from raysp.public_names import resolved
from raysp.specs.outputs.classes import Classes
from raysp.specs.outputs.transcript import Transcript
from raysp.specs.pipeline import fingerprint
from raysp.specs.values import JsonValue, hashed_fields
from raysp.text.error_rates import TextRules
from raysp.text.targets import Targets
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.class_targets import ClassTargets, described_classes, sorted_classes
from raysp.training.objectives.lora import add_lora, check_targets
from raysp.training.objectives.passes import Passes
from raysp.training.objectives.starting_model import NAMED_OUTPUTS, anew, freeze, loading, set_classes
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import ClassObjective, Objective, TextObjective
from raysp.words import count


class Task(ABC):
    """Part of a training that depends on its objective; it must have `of`, `targets`, `model` and `loss`.

    It is pickled for workers, so folders come from the argument `plan`.
    """

    spec: Objective
    TAGS: ClassVar[tuple[str, ...]] = ("raysp",)
    """Tags of the model card."""
    DESCRIBED_ROWS: ClassVar[int] = 0
    """Rows of the training from which `files` are computed; 0: there are no such files."""
    COMPARED: ClassVar[Compared]
    """Kind of the labels by which weights are evaluated."""
    tokenizer: "TextOrCTCTokenizer | None"
    """Tokenizer of the exported checkpoint; None: it has none, or it is built from the corpus."""

    @classmethod
    @abstractmethod
    def of(cls, spec: Any, plan: TrainingPlan) -> Self:  # noqa: ANN401 - the spec of the subclass
        """Return the task of an objective, before its corpus is indexed.

        Raises:
            PlanError, CheckpointError: the vocabulary or the checkpoint cannot be used.
        """

    @abstractmethod
    def targets(self) -> Targets:
        """Return the targets of rows; without a vocabulary or classes yet, their ids are provisional."""

    @abstractmethod
    def model(self, plan: TrainingPlan) -> Model:
        """Return the model to begin with, float32 on the CPU. Freezing and LoRA follow from the spec.

        Raises:
            PlanError: a field of `masks` does not exist.
            CheckpointError: the checkpoint cannot be loaded.
        """

    @abstractmethod
    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        """Return the losses of a micro-batch of at least one row; `passes` runs the model on waveforms."""

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Everything of the objective that affects the index of a shard."""
        return {}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """Meaning of the model's outputs, such as `{"vocabulary": {...}}`."""
        return {}

    @property
    def digest(self) -> str:
        """Hash of the meaning of the outputs, part of the fingerprint."""
        return fingerprint(self.outputs)

    def settled(self, counts: Mapping[str, int]) -> Self:
        """Return the task with the vocabulary or classes of a corpus, unless the objective sets them.

        Args:
            counts: counts of `Targets` over the corpus.

        Raises:
            PlanError: the corpus has too few of them.
        """
        return self

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return facts of the targets for users, as text by name; arguments as for `settled`."""
        return {}

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of the shortest input of the model that is trained."""
        return plan.checkpoint.min_samples

    def label_ops(self, loaded: LoadedCheckpoint) -> Sequence[OutputOp]:
        """Return the ops of the outputs by which weights are evaluated, for the model in memory.

        Their first columns are a text or a class and its score; then follows the embedding of a speaker, if any.
        """
        raise NotImplementedError

    def frozen_at_first(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the trained parameters that are frozen for `freeze_steps`: all but the head."""
        return (weight for weight in model.base_model.parameters() if weight.requires_grad)

    def files(self, passes: Passes, batches: Iterable[MicroBatch]) -> Mapping[str, str]:
        """Return contents of further files of the checkpoint by name, computed by the trained model from rows."""
        return {}


@dataclass(frozen=True)
class Criterion:
    """A model that is trained, with its loss."""

    task: Task
    passes: Passes

    @classmethod
    def of(cls, task: Task, plan: TrainingPlan) -> "Criterion":
        """Return the model with its loss, ready to train: on the plan's device, with its frozen parts and LoRA set.

        Raises:
            PlanError, CheckpointError: as `Task.model`; the model has no layer for LoRA.
        """
        spec, model = task.spec, task.model(plan)
        if plan.recipe.schedule.checkpointing:
            model.gradient_checkpointing_enable()
        if spec.freeze is not None:
            freeze(model, spec.freeze)
        if spec.lora is not None:
            add_lora(model, spec.lora, seed=plan.recipe.seed)
        model = model.to(plan.workers.device).train()
        extractor = load_feature_extractor(plan.checkpoint.path)
        return cls(task, Passes(model, extractor, getattr(torch, plan.dtype)))

    @property
    def model(self) -> Model:
        """The model that is trained."""
        return self.passes.model

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row.

        Raises:
            RunError: the loss of the task returned values that no step can use, or called `sys.exit`.
        """
        try:
            losses = self.task.loss(self.passes, batch)
        except SystemExit as error:
            raise RunError(
                f"{type(self.task).__name__}.loss called sys.exit({error}). Correct the objective"
            ) from error
        if unusable := _unusable(losses, batch):
            raise RunError(f"{type(self.task).__name__}.loss returned {unusable}. Correct the objective")
        return losses


def _unusable(losses: object, batch: MicroBatch) -> str:
    """Describe what makes the losses of a micro-batch unusable; empty if they can be used."""
    if not isinstance(losses, Losses):
        return f"a value of type {type(losses).__name__}, expected Losses"
    total, rows_B = losses.total, losses.rows_B
    if total.ndim or total.requires_grad != torch.is_grad_enabled():
        shown = f"shape {tuple(total.shape)} and requires_grad={total.requires_grad}"
        return f"a total of {shown}, expected a scalar to differentiate"
    # Rows without any token of a target may count 0.
    if not 0 <= losses.count < math.inf or (losses.count == 0 and any(len(target) for target in batch.targets)):
        return f"the count {losses.count}, expected the number of rows or tokens, above 0"
    if rows_B.shape != (len(batch.rows),):
        return f"rows_B of shape {tuple(rows_B.shape)}, expected a loss for each of {len(batch.rows)} rows"
    return ""


def task_of(plan: TrainingPlan) -> Task:
    """Return the task of a recipe before its corpus is indexed.

    Raises:
        PlanError, CheckpointError: its vocabulary, tokenizer or LoRA cannot be used.
    """
    objective = plan.recipe.objective
    if objective.lora is not None:
        check_targets(objective.lora.targets, plan.checkpoint.path, plan.decoder)
    task: Task = cast("type[Task]", resolved(objective.TASK)).of(objective, plan)
    return task


class TextTask(Task):
    """Base of tasks whose targets are texts, written by a tokenizer."""

    spec: TextObjective
    TAGS = ("automatic-speech-recognition", "raysp")
    COMPARED = "recognition"

    @property
    def vocabulary(self) -> dict[str, JsonValue] | None:
        """Ids of the tokens; None: not known yet."""
        return None if self.tokenizer is None else {**self.tokenizer.get_vocab()}

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, and the vocabulary."""
        return {"text": hashed_fields(self.spec.text), "vocabulary": self.vocabulary}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The vocabulary."""
        return {"vocabulary": self.vocabulary}

    def label_ops(self, loaded: LoadedCheckpoint) -> Sequence[OutputOp]:
        """Return the op of the text."""
        return [Transcript().op(loaded.summary, loaded)]

    @property
    def rules(self) -> TextRules:
        """Rules for the texts."""
        return TextRules(self.spec.text.case, self.spec.text.keep, self.spec.text.language)


@dataclass(frozen=True)
class ClassTask(Task):
    """Base of tasks whose targets are classes of recordings.

    Attributes:
        spec: the objective.
        classes: names of the classes; None: the classes of the corpus.
    """

    TAGS = ("audio-classification", "raysp")
    COMPARED: ClassVar[Compared] = "classification"
    AUTO: ClassVar[Any]
    """Class of raysp.models whose heads have the classes."""
    tokenizer = None

    spec: ClassObjective
    classes: Sequence[str] | None

    @classmethod
    def of(cls, spec: Any, plan: TrainingPlan) -> Self:  # noqa: ANN401 - as above
        """Return the task before its corpus is indexed."""
        return cls(spec, spec.classes)

    @property
    def names(self) -> Sequence[str]:
        """Names of the classes, in the order of the model's outputs."""
        assert self.classes is not None
        return self.classes

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """The column, and the names if the objective sets them."""
        names: list[JsonValue] | None = None if self.classes is None else [*self.classes]
        return {"column": self.spec.column, "classes": names}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """Names of the classes."""
        return {"classes": [*self.names]}

    def label_ops(self, loaded: LoadedCheckpoint) -> Sequence[OutputOp]:
        """Return the op of the most probable class."""
        return [Classes().op(loaded.summary, loaded)]

    def settled(self, counts: Mapping[str, int]) -> Self:
        """Return the task with the classes of a corpus, unless the objective sets them.

        Raises:
            PlanError: there is only one class, from which nothing can be learnt.
        """
        if self.classes is not None:
            return self
        names = sorted_classes(counts)
        if len(names) < 2:
            raise PlanError(
                f"objective.column: {self.spec.column!r} holds {', '.join(map(repr, names)) or 'no class'}, expected "
                f"at least {count(2, 'class')}: choose another column"
            )
        return replace(self, classes=names)

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the classes with their numbers of rows."""
        return {"classes": described_classes(self.names, counts)}

    def targets(self) -> ClassTargets:
        """Return the numbers of classes."""
        return ClassTargets(self.classes)

    def model(self, plan: TrainingPlan) -> Model:
        """Return the model with a head for the classes: the checkpoint's if it has them, else a new head."""
        spec, seed, options = self.spec, plan.recipe.seed, {"dtype": torch.float32, **NAMED_OUTPUTS}
        with loading(seed, spec.masks):
            model: Model = self.AUTO.from_pretrained(plan.checkpoint.path, **options, **spec.masks)
            model = anew(model, seed=seed) if spec.random_weights else model
            set_classes(model, self.names, seed=seed)
        return model
