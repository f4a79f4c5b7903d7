"""`Classify`: classes of recordings, or numbers: loss and task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.crossing import sent
from raysp.evaluation.classification import compare_classes
from raysp.evaluation.scores import Comparison, no_metrics
from raysp.models.auto import AutoModelForAudioClassification
from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import IGNORED_LABEL
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import load_feature_extractor
from raysp.training.data.micro_batches import Losses, MicroBatch, Objective
from raysp.training.objectives.objective_models import begun, naming_masks
from raysp.training.objectives.passes import Passes, evaluation_mode, padded_targets, single_targets
from raysp.training.objectives.starting_model import Masks, load_head
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Classify
from raysp.training.tasks.class_targets import ClassTargets, NamedClasses, NumberTargets
from raysp.training.tasks.task import WORST_ROWS, PredictedRows, Prediction
from raysp.words import count

Problem = Literal["single", "multi", "regression"]
PROBLEM_TYPES: dict[Problem, str] = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}
"""Values of `problem_type` in config.json."""


class ClassObjective:
    """Loss of a head over classes of recordings, summed over rows.

    Args:
        model: a model with a head for classes.
        feature_extractor: extractor of its checkpoint.
        problem: "single", with one class as the target of a row: cross entropy. "multi", with any number of classes:
            binary cross entropy, the mean over all classes. "regression", with a number for each output: squared error,
            the mean over all outputs.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    terms: tuple[str, ...] = ()

    def __init__(
        self,
        model: Model,
        feature_extractor: FeatureExtractor,
        *,
        problem: Problem = "single",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.problem = problem

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        _, rows_B = self._run(batch)
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())

    @torch.inference_mode()
    def predict(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return logits (B, N) in evaluation mode and the losses of rows (B,), float32 on the CPU."""
        with evaluation_mode(self.model):
            logits_BN, rows_B = self._run(batch)
        return logits_BN.cpu(), rows_B.cpu()

    def _run(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return logits (B, N) and the losses of rows (B,)."""
        num_classes = self.model.config.num_labels
        match self.problem:
            case "single":
                targets = single_targets(batch, num_classes)
            case "multi":
                targets = _many_targets(batch, num_classes)
            case "regression":
                targets = _numbers(batch, num_classes)
        output, _ = self.passes(self.model, batch.waves)
        logits_BN = output.logits.float()
        return logits_BN, self._row_losses(logits_BN, sent(targets, self.model.device))

    def _row_losses(self, logits_BN: Tensor, targets: Tensor) -> Tensor:
        match self.problem:
            case "single":
                return F.cross_entropy(logits_BN, targets, reduction="none")
            case "multi":
                return F.binary_cross_entropy_with_logits(logits_BN, targets, reduction="none").mean(-1)
            case "regression":
                return F.mse_loss(logits_BN, targets, reduction="none").mean(-1)


def _many_targets(batch: MicroBatch, num_classes: int) -> Tensor:
    """Return ones for the classes of each row and zeros elsewhere, float32 (B, N)."""
    classes_BL = padded_targets(batch, num_classes)
    ones_BN = torch.zeros(len(classes_BL), num_classes + 1)
    ones_BN.scatter_(1, classes_BL.where(classes_BL != IGNORED_LABEL, num_classes), 1.0)
    return ones_BN[:, :num_classes]


def _numbers(batch: MicroBatch, num_outputs: int) -> Tensor:
    """Return the numbers of each row, float32 (B, N)."""
    for row, target in zip(batch.rows, batch.targets, strict=True):
        if len(target) != num_outputs:
            raise ValueError(f"row {row}: {count(len(target), 'number')} found, expected {num_outputs}")
    return torch.tensor([[*target] for target in batch.targets], dtype=torch.float32)


def load_classifier(
    folder: Path,
    names: Sequence[str],
    *,
    problem: Problem = "single",
    masks: Masks | None = None,
    seed: int = 0,
    random_weights: bool = False,
) -> Model:
    """Load a checkpoint with a head for classes of recordings, in training mode.

    The head is the checkpoint's if it has these classes, else a new head.

    Args:
        folder: model folder.
        names: classes, or names of the outputs of a regression.
        problem: as for `ClassObjective`.
        masks: fields of the encoder's configuration.
        seed: seed of initial weights.
        random_weights: whether all weights are initialised.
    """
    model = load_head(
        AutoModelForAudioClassification, folder, names=names, masks=masks, seed=seed, random_weights=random_weights
    )
    model.config.problem_type = PROBLEM_TYPES[problem]
    return model


LIKELY = 0.5
"""Probability above which one of many classes is predicted."""


@dataclass(frozen=True)
class ClassesTask(NamedClasses[Classify]):
    """Task of `Classify`."""

    tags = ("audio-classification", "raysp")

    @classmethod
    def of(cls, spec: Classify, plan: TrainingPlan) -> "ClassesTask":
        """Return the task before its corpus is indexed."""
        shortest = plan.checkpoint.min_samples
        if spec.classes is None:
            return cls((spec.column,) if spec.problem == "regression" else None, shortest, spec)
        return cls(tuple(spec.classes), shortest, spec)

    @property
    def problem(self) -> Problem:
        """The problem, as for `Classify`."""
        return self.spec.problem

    def targets(self) -> ClassTargets | NumberTargets:
        """Return the numbers of classes, or the numbers of a regression."""
        if self.problem == "regression":
            return NumberTargets(len(self.names))
        return ClassTargets(self.classes, is_many=self.problem == "multi")

    def objective(self, plan: TrainingPlan) -> ClassObjective:
        """Return the loss with its model."""
        spec, folder = self.spec, plan.checkpoint.path
        with naming_masks():
            model = load_classifier(
                folder,
                self.names,
                problem=spec.problem,
                masks=spec.masks,
                seed=plan.recipe.seed,
                random_weights=spec.random_weights,
            )
        return ClassObjective(
            begun(model, plan, spec.freeze, spec.lora),
            load_feature_extractor(folder),
            problem=spec.problem,
            dtype=getattr(torch, plan.dtype),
        )

    def shown(self, target: Sequence[float]) -> str:
        """Return the names of classes, or numbers."""
        if self.problem == "regression":
            return ", ".join(f"{number:.4g}" for number in target)
        return ", ".join(self.names[int(number)] for number in target)

    def reference(self, value: object) -> str | None:
        """Return the name of a class, or of several."""
        if value is None:
            return None
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the most probable class, all probable classes, or numbers."""
        assert isinstance(objective, ClassObjective)
        none: dict[str, list[float]] = {"single": [0], "multi": [], "regression": [0.0] * len(self.names)}
        placeholder = none[self.problem]
        targets = [target if len(target) else placeholder for target in batch.targets]
        logits_BN, losses_B = objective.predict(replace(batch, targets=targets))
        return [self._prediction(*row) for row in zip(logits_BN, losses_B.tolist(), strict=True)]

    def _prediction(self, logits_N: Tensor, loss: float) -> Prediction:
        match self.problem:
            case "single":
                score, place = logits_N.softmax(-1).max(-1)
                return Prediction(self.names[int(place)], loss, float(score))
            case "multi":
                return Prediction(self.shown((logits_N.sigmoid() > LIKELY).nonzero()[:, 0].tolist()), loss)
            case "regression":
                return Prediction(self.shown(logits_N.tolist()), loss)

    def compare(self, rows: PredictedRows) -> Comparison:
        """Return accuracy and macro F1 of single classes; other problems have the loss alone."""
        if self.problem != "single":
            return no_metrics(len(rows.references))
        return compare_classes(
            rows.references,
            rows.texts,
            rows.scores,
            rows.columns,
            classes=self.names,
            bootstrap=rows.bootstrap,
            worst=WORST_ROWS,
        )
