"""`Classify`: one class for each recording: loss and task."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from raysp.crossing import sent
from raysp.evaluation.comparing import Task as Compared
from raysp.models.auto import AutoModelForAudioClassification
from raysp.models.base.modeling import Model
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import LoadedCheckpoint, load_feature_extractor
from raysp.ops.forward import OutputOp
from raysp.specs.outputs.classes import Classes
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.objective_models import named_model
from raysp.training.objectives.passes import Passes, single_targets
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Classify
from raysp.training.tasks.class_targets import ClassTargets, NamedClasses


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
        classes_B = single_targets(batch, self.model.config.num_labels)
        output, _ = self.passes(self.model, batch.waves)
        rows_B = F.cross_entropy(output.logits.float(), sent(classes_B, self.model.device), reduction="none")
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())


@dataclass(frozen=True)
class ClassesTask(NamedClasses[Classify]):
    """Task of `Classify`."""

    tags = ("audio-classification", "raysp")
    compared: ClassVar[Compared] = "classification"

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

    def label_ops(self, loaded: LoadedCheckpoint) -> list[OutputOp]:
        """Return the op of the most probable class."""
        return [Classes().op(loaded.summary, loaded)]
