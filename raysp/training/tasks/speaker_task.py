"""Task of `Speakers`: embeddings of recordings, which are near each other for the same speaker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from raysp.errors import PlanError
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import Columns, Comparison
from raysp.evaluation.verification import compare_known_speakers
from raysp.models.auto import AutoModelForAudioXVector
from raysp.models.checking import load_feature_extractor
from raysp.specs.values import JsonValue
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.objectives.objective_models import begun, naming_masks
from raysp.training.objectives.speaker_objective import SpeakerObjective, load_speaker_model
from raysp.training.objectives.starting_model import shortest_input
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Speakers
from raysp.training.specs.recipe import Evaluation
from raysp.training.tasks.class_targets import ClassTargets, described_classes
from raysp.training.tasks.named_classes import NamedClasses
from raysp.training.tasks.task import WORST_ROWS, Prediction


@dataclass(frozen=True)
class SpeakersTask(NamedClasses):
    """Task of `Speakers`.

    Attributes:
        spec: the objective.
    """

    spec: Speakers

    tags = ("audio-classification", "raysp")

    @classmethod
    def of(cls, spec: Speakers, plan: TrainingPlan) -> "SpeakersTask":
        """Return the task before its corpus is known.

        Raises:
            PlanError: recordings would be cut to less than the shortest input of the model.
        """
        shortest = shortest_input(AutoModelForAudioXVector, plan.checkpoint.path)
        least = shortest / plan.checkpoint.sample_rate
        if spec.crop_seconds is not None and spec.crop_seconds < least:
            raise PlanError(
                f"found objective.crop_seconds={spec.crop_seconds:g}; expected at least {least:g}, the shortest "
                "input of the model"
            )
        return cls(None if spec.classes is None else tuple(spec.classes), shortest, spec)

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """The column, and the names if they are given."""
        return self.index_parts_of(self.spec.column, "single")

    def settled(self, counts: Mapping[str, int]) -> "SpeakersTask":
        """Return the task with the speakers of the corpus, unless they are given.

        Raises:
            PlanError: there is only one, which cannot be learnt.
        """
        return self.settled_by(self.spec.column, counts)

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the speakers with their numbers of rows."""
        return {"classes": described_classes(self.names, counts, "class")}

    def targets(self) -> ClassTargets:
        """Return the numbers of speakers."""
        return ClassTargets(self.known)

    def objective(self, plan: TrainingPlan) -> SpeakerObjective:
        """Return the loss with its model."""
        spec, folder = self.spec, plan.checkpoint.path
        with naming_masks():
            model = load_speaker_model(
                folder, self.names, masks=spec.masks, seed=plan.recipe.seed, random_weights=spec.random_weights
            )
        return SpeakerObjective(
            begun(model, plan, spec.freeze, spec.lora),
            load_feature_extractor(folder),
            margin=spec.margin,
            margin_warmup=spec.margin_warmup,
            crop_seconds=spec.crop_seconds,
            dtype=getattr(torch, plan.dtype),
        )

    def shown(self, target: Sequence[float]) -> str:
        """Return the name of a speaker."""
        return ", ".join(self.names[int(number)] for number in target)

    def reference(self, value: object) -> str | None:
        """Return the name of a speaker, who need not be one of the training; None for null and an empty string."""
        return None if value is None or value == "" else str(value)

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the most probable speaker of the training, and the embedding; a target may be empty."""
        assert isinstance(objective, SpeakerObjective)
        found = objective.predict(replace(batch, targets=[target if len(target) else [0] for target in batch.targets]))
        scores_B, places_B = found.logits_BN.softmax(-1).max(-1)
        rows = zip(places_B.tolist(), found.losses_B.tolist(), scores_B.tolist(), strict=True)
        vectors = found.embeddings_BE.numpy()
        return [
            Prediction(self.names[place], loss, score, vector)
            for (place, loss, score), vector in zip(rows, vectors, strict=True)
        ]

    def compare(
        self,
        references: Sequence[str],
        predictions: Sequence[Prediction],
        columns: Columns,
        evaluation: Evaluation,
        bootstrap: Bootstrap | None,
    ) -> Comparison:
        """Return the equal error rate, and accuracy and macro F1 of the rows of speakers of the training."""
        return compare_known_speakers(
            references,
            [one.vector for one in predictions],
            [one.text for one in predictions],
            [one.score for one in predictions],
            columns,
            classes=self.names,
            bootstrap=bootstrap,
            worst=WORST_ROWS,
        )
