"""Task of `Classify`: classes of recordings, or numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raysp.evaluation.classification import compare_classes
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import Columns, Comparison, no_metrics
from raysp.models.checking import load_feature_extractor
from raysp.specs.values import JsonValue
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.objectives.class_objective import ClassObjective, Problem, load_classifier
from raysp.training.objectives.objective_models import begun, naming_masks
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Classify
from raysp.training.specs.recipe import Evaluation
from raysp.training.tasks.class_targets import ClassTargets, NumberTargets, described_classes
from raysp.training.tasks.named_classes import NamedClasses
from raysp.training.tasks.task import WORST_ROWS, Prediction

LIKELY = 0.5
"""Probability above which one of many classes is predicted."""


@dataclass(frozen=True)
class ClassesTask(NamedClasses):
    """Task of `Classify`.

    Attributes:
        spec: the objective.
    """

    spec: Classify

    tags = ("audio-classification", "raysp")

    @classmethod
    def of(cls, spec: Classify, plan: TrainingPlan) -> "ClassesTask":
        """Return the task before its corpus is known."""
        shortest = plan.checkpoint.min_samples
        if spec.classes is None:
            return cls((spec.column,) if spec.problem == "regression" else None, shortest, spec)
        return cls(tuple(spec.classes), shortest, spec)

    @property
    def problem(self) -> Problem:
        """The problem, as for `Classify`."""
        return self.spec.problem

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """The column, and the names if they are given."""
        return self.index_parts_of(self.spec.column, self.problem)

    def settled(self, counts: Mapping[str, int]) -> "ClassesTask":
        """Return the task with the classes of the corpus, unless they are given.

        Raises:
            PlanError: there is only one, which cannot be learnt.
        """
        return self.settled_by(self.spec.column, counts, least=2 if self.problem == "single" else 0)

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the classes with their numbers of rows."""
        if self.problem == "regression":
            return {"outputs": ", ".join(self.names)}
        return {"classes": described_classes(self.names, counts, "class")}

    def targets(self) -> ClassTargets | NumberTargets:
        """Return the numbers of classes, or the numbers of a regression."""
        if self.problem == "regression":
            return NumberTargets(len(self.names))
        return ClassTargets(self.known, is_many=self.problem == "multi")

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
        """Return the most probable class, all probable ones, or numbers."""
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

    def compare(
        self,
        references: Sequence[str],
        predictions: Sequence[Prediction],
        columns: Columns,
        evaluation: Evaluation,
        bootstrap: Bootstrap | None,
    ) -> Comparison:
        """Return accuracy and macro F1 of single classes; other problems have the loss alone."""
        if self.problem != "single":
            return no_metrics(len(references))
        found, scores = [one.text for one in predictions], [one.score for one in predictions]
        return compare_classes(
            references, found, scores, columns, classes=self.names, bootstrap=bootstrap, worst=WORST_ROWS
        )
