"""`Classify`: one class for each recording: loss and task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.crossing import sent
from raysp.evaluation.classification import compare_classes
from raysp.evaluation.scores import Comparison
from raysp.models.auto import AutoModelForAudioClassification
from raysp.models.base.modeling import Model
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import load_feature_extractor
from raysp.training.data.micro_batches import Losses, MicroBatch, Objective
from raysp.training.objectives.objective_models import named_model
from raysp.training.objectives.passes import Passes, evaluation_mode, single_targets
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Classify
from raysp.training.tasks.class_targets import ClassTargets, NamedClasses
from raysp.training.tasks.task import WORST_ROWS, PredictedRows, Prediction


class ClassObjective:
    """Cross entropy of the class of each recording, summed over rows.

    Args:
        model: a model with a head for classes.
        feature_extractor: extractor of its checkpoint.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    def __init__(
        self, model: Model, feature_extractor: FeatureExtractor, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)

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
        classes_B = single_targets(batch, self.model.config.num_labels)
        output, _ = self.passes(self.model, batch.waves)
        logits_BN = output.logits.float()
        return logits_BN, F.cross_entropy(logits_BN, sent(classes_B, self.model.device), reduction="none")


@dataclass(frozen=True)
class ClassesTask(NamedClasses[Classify]):
    """Task of `Classify`."""

    tags = ("audio-classification", "raysp")

    @classmethod
    def of(cls, spec: Classify, plan: TrainingPlan) -> "ClassesTask":
        """Return the task before its corpus is indexed."""
        shortest = plan.checkpoint.min_samples
        return cls(None if spec.classes is None else tuple(spec.classes), shortest, spec)

    def targets(self) -> ClassTargets:
        """Return the numbers of classes."""
        return ClassTargets(self.classes)

    def objective(self, plan: TrainingPlan) -> ClassObjective:
        """Return the loss with its model."""
        model = named_model(AutoModelForAudioClassification, plan, self.spec, self.names)
        model.config.problem_type = "single_label_classification"
        extractor = load_feature_extractor(plan.checkpoint.path)
        return ClassObjective(model, extractor, dtype=getattr(torch, plan.dtype))

    def shown(self, target: Sequence[float]) -> str:
        """Return the name of a class."""
        return ", ".join(self.names[int(number)] for number in target)

    def reference(self, value: object) -> str | None:
        """Return the name of a class."""
        return None if value is None else str(value)

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the most probable class."""
        assert isinstance(objective, ClassObjective)
        targets = [target if len(target) else [0] for target in batch.targets]
        logits_BN, losses_B = objective.predict(replace(batch, targets=targets))
        scores_B, places_B = logits_BN.softmax(-1).max(-1)
        rows = zip(places_B.tolist(), losses_B.tolist(), scores_B.tolist(), strict=True)
        return [Prediction(self.names[place], loss, score) for place, loss, score in rows]

    def compare(self, rows: PredictedRows) -> Comparison:
        """Return accuracy and macro F1."""
        return compare_classes(
            rows.references,
            rows.texts,
            rows.scores,
            rows.columns,
            classes=self.names,
            bootstrap=rows.bootstrap,
            worst=WORST_ROWS,
        )
