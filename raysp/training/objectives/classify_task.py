"""`Classify`: one class of each recording."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from raysp.crossing import sent
from raysp.models.auto import AutoModelForAudioClassification
from raysp.models.base.modeling import Model
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.passes import Passes, single_targets
from raysp.training.objectives.task import ClassTask
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Classify


@dataclass(frozen=True)
class ClassifyTask(ClassTask):
    """Task of `Classify`."""

    AUTO: ClassVar = AutoModelForAudioClassification

    spec: Classify

    def model(self, plan: TrainingPlan) -> Model:
        """Return the model with a head for the classes."""
        model = super().model(plan)
        model.config.problem_type = "single_label_classification"
        return model

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        """Return the cross entropy of the classes, summed over rows."""
        classes_B = single_targets(batch, passes.model.config.num_labels)
        output, _ = passes(passes.model, batch.waves)
        logits_BN = output.logits.float()
        return Losses.of(F.cross_entropy(logits_BN, sent(classes_B, logits_BN.device), reduction="none"))
