"""Targets of classification, numbers of classes, and the base of tasks with named classes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

from torch import nn

from raysp.errors import PlanError
from raysp.models.base.modeling import Model
from raysp.specs.values import JsonValue
from raysp.text.targets import Target
from raysp.training.objectives.objective_models import base_parameters
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import LEAST_CLASSES, Classify, Speakers
from raysp.training.tasks.task_texts import digest_of
from raysp.words import count

NO_CLASS, UNKNOWN_CLASS = "no_class", "unknown_class"
"""Reasons: a class is null or empty; it is not among the classes."""
SHOWN_CLASSES = 12
"""Classes that are shown with their rows."""


class ClassTargets:
    """Numbers of the classes of rows.

    Args:
        names: the classes; None: undetermined yet, so that all numbers are 0.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self.places = None if names is None else {name: place for place, name in enumerate(names)}
        self.counts: Counter[str] = Counter()
        """Rows of each class so far."""

    def __call__(self, value: object) -> Target:
        """Return the target of a value, and count its class."""
        if value is None or value == "":
            return Target((), NO_CLASS)
        name = str(value)
        self.counts[name] += 1
        if self.places is None:
            return Target([0])
        return Target([self.places[name]]) if name in self.places else Target((), UNKNOWN_CLASS)

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return an empty text: a recording of any length has classes."""
        return ""


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in order: by value if all are integers, else by characters."""
    ordered = sorted(names)
    if all(name.removeprefix("-").isdecimal() for name in ordered):
        ordered.sort(key=int)
    return tuple(ordered)


def described_classes(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return the number of classes, the rows of the most frequent, and unknown values."""
    unknown = {name: number for name, number in counts.items() if name not in {*names}}
    of_names = {name: counts.get(name, 0) for name in names}
    parts = [f"{count(len(names), 'class')}: {_listed(of_names)}"]
    return "; unknown: ".join([*parts, *([_listed(unknown)] if unknown else [])])


def _listed(counts: Mapping[str, int]) -> str:
    chosen = sorted(counts, key=lambda name: (-counts[name], name))
    more = f" and {len(chosen) - SHOWN_CLASSES:,} more" if len(chosen) > SHOWN_CLASSES else ""
    return " ".join(f"{name} ({counts[name]:,})" for name in chosen[:SHOWN_CLASSES]) + more


Spec = TypeVar("Spec", bound=Classify | Speakers)


@dataclass(frozen=True)
class NamedClasses(Generic[Spec]):
    """Base of tasks whose outputs have names.

    Attributes:
        classes: names of the classes; None: from the corpus.
        shortest: samples of the shortest input of the model.
        spec: the objective.
    """

    classes: tuple[str, ...] | None
    shortest: int
    spec: Spec

    tokenizer = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        assert self.classes is not None
        return self.classes

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """Names of the classes, in the order of the model's outputs."""
        return {"classes": [*self.names]}

    @property
    def digest(self) -> str:
        """Hash of the names."""
        return digest_of(self.names)

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """The column, and the names if the objective sets them."""
        names: list[JsonValue] | None = None if self.classes is None else [*self.classes]
        return {"column": self.spec.column, "classes": names}

    def settled(self, counts: Mapping[str, int]) -> Self:
        """Return the task with the classes of a corpus, unless the objective sets them.

        Raises:
            PlanError: there is only one class, from which nothing can be learnt.
        """
        if self.classes is not None:
            return self
        names = sorted_classes(counts)
        if len(names) < LEAST_CLASSES:
            raise PlanError(
                f"objective.column: {self.spec.column!r} holds {', '.join(map(repr, names)) or 'no class'}, expected "
                f"at least {count(LEAST_CLASSES, 'class')}: choose another column"
            )
        return replace(self, classes=names)

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the classes with their numbers of rows."""
        return {"classes": described_classes(self.names, counts)}

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame, and of the frames that a model of speakers needs around it."""
        return self.shortest

    def frozen_at_first(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the parameters of all but the head."""
        return base_parameters(model)
