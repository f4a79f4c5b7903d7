"""Local places that the workers of a run read."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from raysp.cluster.shared_places import Seen, check_shared, place_of_checkpoint, places_of_source, seen
from raysp.labelling.planning.planned_checkpoint import checkpoint_folder, folder_of
from raysp.labelling.planning.run_plan import Plan
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import Label
from raysp.storage.store import scheme_of


def check_places(plan: Plan) -> None:
    """Check that the machines of the cluster see the sink of a run and the places that its workers read.

    Raises:
        PlanError: as `check_shared`.
    """
    check_shared(plan.sink.store, plan.pipeline, _places(plan))


def _places(plan: Plan) -> Iterator[Seen]:
    """Yield local places that the workers of a run read and that are not declared as shared, each with one file."""
    pipeline = plan.pipeline
    yield from places_of_source("source", pipeline.source, [one.shard for one in plan.todo])
    places = [place for place, step in enumerate(pipeline.steps) if isinstance(step, Label)]
    for place, (one, _) in zip(places, plan.passes, strict=True):
        yield from _of_pass(f"steps.{place}", one)


def _of_pass(step: str, pipeline: Pipeline) -> Iterator[Seen]:
    folder_of_label = partial(checkpoint_folder, pipeline)
    yield from place_of_checkpoint(f"{step}.checkpoint", pipeline.label.checkpoint, folder_of_label)
    for number, output in enumerate(pipeline.label.outputs):
        for name, url in output.files.items():
            if not scheme_of(url):
                yield seen(f"{step}.outputs.{number}.{name}", url, Path(url))
        for name, url in output.checkpoints.items():
            folder = partial(folder_of, url, pipeline.source)
            yield from place_of_checkpoint(f"{step}.outputs.{number}.{name}", url, folder)
