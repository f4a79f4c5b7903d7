"""Columns of the source that an evaluation keeps in its label shards, for reports, comparisons and exports of them."""

from collections.abc import Sequence
from dataclasses import replace

from raysp.columns import ROW_COLUMNS
from raysp.evaluation.evaluate.references import Wanted
from raysp.sink.run_record import RunRecord
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Pipeline
from raysp.specs.values import JsonValue


def with_compared(pipeline: Pipeline, wanted: Wanted) -> Pipeline:
    """Return a pipeline whose label shards have the columns that are compared, unless labels have such a name.

    Where an earlier evaluation labelled into the sink, its columns stay, so that nothing is labelled again.

    Args:
        pipeline: the pipeline.
        wanted: columns that are compared.
    """
    taken = {*ROW_COLUMNS, *pipeline.flow.columns, pipeline.source.id}
    is_text = wanted.task == "recognition"
    text = pipeline.source.text or (wanted.reference if is_text and wanted.reference not in taken else None)
    others = (*wanted.others, *(() if is_text else (wanted.reference,)))
    keep = [*pipeline.sink.keep, *(name for name in others if name not in {*taken, text})]
    record = Sink.open(pipeline.sink.url, pipeline.sink.storage_options).record()
    if record is not None:
        text, keep = pipeline.source.text or _recorded_text(record), _recorded_keep(record, pipeline.sink.keep, keep)
    source, sink = replace(pipeline.source, text=text), replace(pipeline.sink, keep=[*dict.fromkeys(keep)])
    return replace(pipeline, source=source, sink=sink)


def not_kept(pipeline: Pipeline, wanted: Wanted) -> tuple[str, ...]:
    """Return the columns that are compared and that the label shards lack."""
    there = {*pipeline.kept, *pipeline.flow.columns, *ROW_COLUMNS, pipeline.source.id}
    return tuple(name for name in (wanted.reference, *wanted.others) if name not in there)


def _recorded_text(record: RunRecord) -> str | None:
    found = _field(_field(record.pipeline, "source"), "text")
    return found if isinstance(found, str) else None


def _recorded_keep(record: RunRecord, given: Sequence[str], wanted: list[str]) -> list[str]:
    """Return the recorded columns; the wanted ones if the recorded ones lack one that a user gives."""
    found = _field(_field(record.pipeline, "sink"), "keep")
    names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    return names if {*given} <= {*names} else wanted


def _field(value: JsonValue, name: str) -> JsonValue:
    return value.get(name) if isinstance(value, dict) else None
