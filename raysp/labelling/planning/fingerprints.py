"""Fingerprint of a pipeline with resolved settings."""

from collections.abc import Sequence
from dataclasses import replace

from raysp.backends.finding import NAMED
from raysp.labelling.planning.planned_checkpoint import digest_of
from raysp.labelling.planning.run_plan import Hashed, Pass
from raysp.sink import run_record
from raysp.sink.run_record import CODE
from raysp.specs.code import UserCode
from raysp.specs.label_parts import Resolution, label_parts
from raysp.specs.pipeline import Pipeline, file_parts, fingerprint, read_code
from raysp.specs.steps import Label
from raysp.specs.values import JsonValue, to_json
from raysp.storage.store import Store


def hash_pipeline(
    pipeline: Pipeline,
    passes: Sequence[Pass],
    code: UserCode | None = None,
) -> Hashed:
    """Return everything that can change a label, with its hashes.

    Args:
        pipeline: the pipeline.
        passes: its passes.
        code: its code from outside raysp; None: read now.
    """
    resolutions = [
        Resolution(
            digest_of(settings.checkpoint.path, settings.checkpoint.backend, one.label.language),
            settings.dtype,
            settings.fingerprint_seconds,
            settings.file_digests,
            "" if settings.checkpoint.backend in NAMED else settings.library,
        )
        for one, settings in passes
    ]
    parts = label_parts(pipeline, *resolutions, code=code)
    staged = parts
    if pipeline.filters:
        steps = pipeline.source_steps
        behind = tuple(f"steps.{place}." for place in range(len(steps), len(pipeline.steps)))
        code_before = read_code(replace(pipeline, steps=steps)).parts()
        staged = {
            name: value
            for name, value in parts.items()
            if not name.startswith(behind) and (not name.startswith(CODE) or name in code_before)
        }
    return Hashed(parts, fingerprint(parts), fingerprint(staged))


def is_surveyed_for(pipeline: Pipeline, record: run_record.RunRecord | None) -> bool:
    """Return whether shards were recorded for the same source, and for what the steps of a pipeline read of it."""
    if record is None:
        return False
    code = {name: value for name, value in record.parts.items() if name.startswith(CODE)}
    return _reading(record.pipeline) == _reading(to_json(pipeline)) and code == read_code(pipeline).parts()


def _reading(pipeline: JsonValue) -> JsonValue:
    """Return the fields of a pipeline that determine what it reads of its source; None for another value."""
    match pipeline:
        case {"source": source, "steps": [*steps], "sink": {"keep": keep}}:
            return [source, keep, [_outputs(step) for step in steps]]
    return None


def _outputs(step: JsonValue) -> JsonValue:
    """Return the outputs of a `Label` step, which alone read columns of the source; another step as it is."""
    return step["outputs"] if isinstance(step, dict) and step.get("type") == Label.__name__ else step


def check_recorded(
    store: Store,
    record: run_record.RunRecord,
    pipeline: Pipeline,
    hashed: Hashed,
) -> None:
    """Raise ChangedError if a sink belongs to another pipeline.

    Args:
        store: the sink.
        record: record of the sink.
        pipeline: the pipeline.
        hashed: everything that can change a label.
    """
    parts, fingerprint, stage_id = hashed
    if record.fingerprint != fingerprint and run_record.is_open(store, record, stage_id):
        record = replace(record, fingerprint=fingerprint)
    files = file_parts(pipeline)
    current = replace(record, fingerprint=fingerprint, parts=parts, file_parts=files, pipeline=to_json(pipeline))
    run_record.check_same(store.url, record, current)
