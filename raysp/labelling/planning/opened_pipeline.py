"""A pipeline with its sink, opened once for planning, the run and its result."""

from dataclasses import dataclass
from typing import Self

from raysp.cluster.resources import Resources, local_resources
from raysp.cluster.work_places import with_absolute_paths
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Pipeline


@dataclass(frozen=True)
class Opened:
    """A pipeline, its sink and the resources of a run: planning takes it, and the plan holds it for the run.

    The plan adds what is found by reading: the description of the checkpoint, the schemas, and the work to do.
    """

    pipeline: Pipeline
    """With absolute paths; the plan has it with commits of the hub and with the backend that was chosen."""
    sink: Sink
    resources: Resources
    """Resources that the run may use."""
    text_beside: str | None = None
    """Column of texts beside recordings that a source without one has, if it lists folders of recordings."""

    @classmethod
    def of(cls, pipeline: Pipeline, resources: Resources | None = None) -> Self:
        """Open the sink of a pipeline, without access to it; resources by default are those of this machine.

        Raises:
            StoreError: as `open_store`.
        """
        pipeline = with_absolute_paths(pipeline)
        here = resources if resources is not None else local_resources(pipeline)
        return cls(pipeline, Sink.of(pipeline.sink), here)
