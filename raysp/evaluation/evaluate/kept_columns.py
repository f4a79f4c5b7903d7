"""Columns of the source that an evaluation keeps in its label shards, for reports, comparisons and exports of them."""

from collections.abc import Sequence
from dataclasses import replace

from raysp.columns import ROW_COLUMNS
from raysp.evaluation.evaluate.references import ComparedColumns
from raysp.labelling.finished.finished_labels import Labelling
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Pipeline


def with_compared(pipeline: Pipeline, columns: ComparedColumns) -> Pipeline:
    """Return a pipeline whose label shards have the columns that are compared, unless labels have such a name.

    Where an earlier evaluation labelled into the sink, its columns stay, so that nothing is labelled again.

    Args:
        pipeline: the pipeline.
        columns: columns that are compared.
    """
    reserved = {*ROW_COLUMNS, *pipeline.flow.columns, pipeline.source.id}
    is_text = columns.task == "recognition"
    text = pipeline.source.text or (columns.reference if is_text and columns.reference not in reserved else None)
    copied = (*columns.groups, *(() if is_text else (columns.reference,)))
    keep: Sequence[str] = [*pipeline.sink.keep, *(name for name in copied if name not in {*reserved, text})]
    place = Sink.open(pipeline.sink.url, pipeline.sink.storage_options)
    if (record := place.record()) is not None:
        earlier = Labelling(place.store, record, shards={}, done=frozenset())
        text = pipeline.source.text or earlier.reference
        keep = earlier.kept if {*pipeline.sink.keep} <= {*earlier.kept} else keep
    source, sink = replace(pipeline.source, text=text), replace(pipeline.sink, keep=[*dict.fromkeys(keep)])
    return replace(pipeline, source=source, sink=sink)


def not_kept(pipeline: Pipeline, columns: ComparedColumns) -> tuple[str, ...]:
    """Return the columns that are compared and that the label shards lack."""
    there = {*pipeline.kept, *pipeline.flow.columns, *ROW_COLUMNS, pipeline.source.id}
    return tuple(name for name in (columns.reference, *columns.groups) if name not in there)
