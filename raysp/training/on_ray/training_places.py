"""Local places that the workers of a training read."""

from collections.abc import Iterator
from functools import partial

from raysp.cluster.shared_places import Seen, place_of_checkpoint, places_of_source
from raysp.labelling.planning.planned_checkpoint import folder_of
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import checkpoints_of


def training_places(plan: TrainingPlan) -> Iterator[Seen]:
    """Yield those of the workers of a training, as `labelling_places` does."""
    recipe = plan.recipe
    yield from places_of_source("source", recipe.source, plan.corpus.shards)
    if recipe.evaluation is not None and plan.evaluated is not None:
        yield from places_of_source("evaluation.source", recipe.evaluation.source, plan.evaluated.shards)
    for place, sounds in plan.sounds.items():
        yield from places_of_source(f"augment.{place}.source", recipe.sounds[place].source, sounds.shards)
    for name, url in checkpoints_of(recipe.objective).items():
        yield from place_of_checkpoint(f"objective.{name}", url, partial(folder_of, url, recipe.source))
