"""The progress of a sink of any kind."""

from raysp.specs.pipeline import Pipeline
from raysp.specs.text_rules import Text
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.work import Asked, Progress, kind_of_sink


def status(
    sink: str | Store,
    storage_options: GivenOptions | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
    normalise: str | Text | None = None,
) -> Progress:
    """Return the progress of a sink, of label shards or of a training; only the sink is read.

    Args:
        sink: url or store of the sink.
        storage_options: options to reach it; None: those of `pipeline`, or with `trust` the recorded ones; of a
            training, environment and profile.
        pipeline: pipeline that made the labels; only its storage options are used. The sink then holds label shards.
        trust: use the recorded storage options.
        normalise: normalisation of the texts whose word errors are counted, as of `evaluate`; all label shards are
            then read. None: the errors that were counted when each shard was committed, without case and punctuation.

    Raises:
        SpecError: there is no such normalisation, or the sink is of a training.
        PlanError: there is no sink at this url, or it has no reference texts to normalise.
    """
    asked = Asked(sink, storage_options, pipeline, trust, normalise)
    return kind_of_sink(asked).progress(asked)
