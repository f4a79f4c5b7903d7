"""Columns of the source that an evaluation keeps in its label shards, for reports, comparisons and exports of them."""

from collections.abc import Sequence
from dataclasses import replace

from raysp.columns import ROW_COLUMNS
from raysp.evaluation.evaluate.references import ComparedColumns
from raysp.sink.run_record import RunRecord
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Pipeline
from raysp.specs.values import JsonValue


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
    keep = [*pipeline.sink.keep, *(name for name in copied if name not in {*reserved, text})]
    record = Sink.open(pipeline.sink.url, pipeline.sink.storage_options).record()
    if record is not None:
        text, keep = pipeline.source.text or _recorded_text(record), _recorded_keep(record, pipeline.sink.keep, keep)
    source, sink = replace(pipeline.source, text=text), replace(pipeline.sink, keep=[*dict.fromkeys(keep)])
    return replace(pipeline, source=source, sink=sink)


def not_kept(pipeline: Pipeline, columns: ComparedColumns) -> tuple[str, ...]:
    """Return the columns that are compared and that the label shards lack."""
    there = {*pipeline.kept, *pipeline.flow.columns, *ROW_COLUMNS, pipeline.source.id}
    return tuple(name for name in (columns.reference, *columns.groups) if name not in there)


def _recorded_text(record: RunRecord) -> str | None:
    text = _field(_field(record.pipeline, "source"), "text")
    return text if isinstance(text, str) else None


def _recorded_keep(record: RunRecord, requested: Sequence[str], keep: list[str]) -> list[str]:
    """Return the recorded columns; `keep` if they lack a requested column."""
    recorded = _field(_field(record.pipeline, "sink"), "keep")
    names = [name for name in recorded if isinstance(name, str)] if isinstance(recorded, list) else []
    return names if {*requested} <= {*names} else keep


def _field(value: JsonValue, name: str) -> JsonValue:
    return value.get(name) if isinstance(value, dict) else None
