"""Task of `ClassifyFrames`: a class for each frame of a recording."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from raysp.evaluation.classification import compare_frames
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import Columns, Comparison, Mismatch
from raysp.models.auto import AutoModelForAudioFrameClassification
from raysp.models.checking import load_feature_extractor
from raysp.models.encoder.heads import IGNORED_LABEL
from raysp.specs.values import JsonValue
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.objectives.class_objective import FrameObjective, load_frame_classifier
from raysp.training.objectives.objective_models import begun, naming_masks
from raysp.training.objectives.starting_model import shortest_input
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import ClassifyFrames
from raysp.training.specs.recipe import Evaluation
from raysp.training.tasks.class_targets import FrameTargets, described_classes, frame_names
from raysp.training.tasks.named_classes import NamedClasses
from raysp.training.tasks.task import WORST_ROWS, Prediction


@dataclass(frozen=True)
class FramesTask(NamedClasses):
    """Task of `ClassifyFrames`.

    Attributes:
        spec: the objective.
        frames: number of frames of a recording, as text.
    """

    spec: ClassifyFrames
    frames: str

    tags = ("audio-frame-classification", "raysp")

    @classmethod
    def of(cls, spec: ClassifyFrames, plan: TrainingPlan) -> "FramesTask":
        """Return the task before its corpus is known.

        Raises:
            CheckpointError: the architecture has no head for frames.
        """
        one = plan.checkpoint
        shortest = shortest_input(AutoModelForAudioFrameClassification, one.path)
        frames = f"(samples - {one.receptive_samples}) // {one.frame_stride} + 1, at {one.sample_rate} Hz"
        return cls(None if spec.classes is None else tuple(spec.classes), shortest, spec, frames)

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """The column, and the names if they are given."""
        return self.index_parts_of(self.spec.column, "frames")

    def settled(self, counts: Mapping[str, int]) -> "FramesTask":
        """Return the task with the classes of the corpus, unless they are given.

        Raises:
            PlanError: there is only one, which cannot be learnt.
        """
        return self.settled_by(self.spec.column, counts)

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the classes with their numbers of frames, and how many frames a recording has."""
        return {"classes": described_classes(self.names, counts, "class"), "frames": self.frames}

    def targets(self) -> FrameTargets:
        """Return the numbers of classes of frames."""
        return FrameTargets(self.known)

    def objective(self, plan: TrainingPlan) -> FrameObjective:
        """Return the loss with its model."""
        spec, folder = self.spec, plan.checkpoint.path
        with naming_masks():
            model = load_frame_classifier(
                folder, self.names, masks=spec.masks, seed=plan.recipe.seed, random_weights=spec.random_weights
            )
        model = begun(model, plan, spec.freeze)
        return FrameObjective(model, load_feature_extractor(folder), dtype=getattr(torch, plan.dtype))

    def shown(self, target: Sequence[float]) -> str:
        """Return the classes of frames as runs."""
        return runs_of([None if number == IGNORED_LABEL else self.names[int(number)] for number in target])

    def reference(self, value: object) -> str | None:
        """Return the classes of frames as runs."""
        return None if value is None else runs_of(frame_names(value))

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the most probable class of each frame as runs, with the mean of their probabilities."""
        assert isinstance(objective, FrameObjective)
        found, losses_B = objective.predict(batch)
        rows = zip(found, losses_B.tolist(), strict=True)
        return [
            Prediction(self.shown(ids_T.tolist()), loss, float(scores_T.mean())) for (ids_T, scores_T), loss in rows
        ]

    def compare(
        self,
        references: Sequence[str],
        predictions: Sequence[Prediction],
        columns: Columns,
        evaluation: Evaluation,
        bootstrap: Bootstrap | None,
    ) -> Comparison:
        """Return accuracy and macro F1 over frames."""
        right = [frames_of(reference) for reference in references]
        found = [[str(name) for name in frames_of(one.text)] for one in predictions]
        worst = [
            Mismatch(row, references[row], predictions[row].text, errors, predictions[row].score)
            for row, errors in enumerate(map(_num_wrong, right, found))
            if errors
        ]
        worst = sorted(worst, key=lambda one: -one.errors)[:WORST_ROWS]
        return compare_frames(right, found, columns, classes=self.names, bootstrap=bootstrap, worst=worst)


def runs_of(names: Sequence[str | None]) -> str:
    """Return classes of frames as a JSON list of runs, such as `[["speech", 12], [null, 3]]`."""
    return json.dumps([[name, len([*run])] for name, run in itertools.groupby(names)], ensure_ascii=False)


def frames_of(runs: str) -> list[str | None]:
    """Return the class of each frame of what `runs_of` has written."""
    return [name for name, length in json.loads(runs) for _ in range(length)]


def _num_wrong(right: Sequence[str | None], found: Sequence[str]) -> int:
    return sum(one is not None and one != other for one, other in zip(right, found, strict=False))
