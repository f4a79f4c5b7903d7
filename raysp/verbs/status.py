"""The progress of a sink of any kind."""

from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.work import Progress, SinkRequest, kind_of_sink


def status(
    sink: str | Store,
    storage_options: GivenOptions | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Progress:
    """Return the progress of a sink, of label shards or of a training; only the sink is read.

    Args:
        sink: url or store of the sink.
        storage_options: options to reach it; None: options of `pipeline`, or with `trust` the recorded ones; of a
            training, environment and profile.
        pipeline: pipeline that made the labels; only its storage options are used. The sink then holds label shards.
        trust: use the recorded storage options.

    Raises:
        PlanError: there is no sink at this url.
    """
    request = SinkRequest(sink, storage_options, pipeline, trust)
    return kind_of_sink(request).progress(request)
