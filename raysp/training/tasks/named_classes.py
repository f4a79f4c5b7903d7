"""What tasks with named classes share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from torch import nn

from raysp.models.base.modeling import Model
from raysp.specs.values import JsonValue
from raysp.training.objectives.objective_models import held_below_head
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.tasks.class_targets import classes_of
from raysp.training.tasks.task_texts import digest_of


@dataclass(frozen=True)
class NamedClasses:
    """Base of tasks whose outputs have names.

    Attributes:
        known: names of the classes or numbers; None: they are those of the corpus.
        shortest: samples of the shortest input of the model.
    """

    known: tuple[str, ...] | None
    shortest: int

    tokenizer = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes or numbers."""
        assert self.known is not None
        return self.known

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The names."""
        return {"classes": [*self.names]}

    @property
    def digest(self) -> str:
        """Hash of the names."""
        return digest_of(self.names)

    def index_parts_of(self, column: str, problem: str) -> Mapping[str, JsonValue]:
        """Return the column, the problem, and the names if they are given."""
        known: list[JsonValue] | None = None if self.known is None else [*self.known]
        return {"column": column, "problem": problem, "classes": known}

    def settled_by(self, column: str, counts: Mapping[str, int], *, least: int = 2) -> Self:
        """Return the task with the classes of a corpus, unless they are given.

        Raises:
            PlanError: there are fewer than `least`.
        """
        return self if self.known is not None else replace(self, known=classes_of(column, counts, least=least))

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame, and of those that a model of speakers needs around it."""
        return self.shortest

    def held(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the parameters of all but the head."""
        return held_below_head(model)
