"""Fingerprint of a pipeline with resolved settings."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from raysp.backends.finding import NAMED
from raysp.labelling.planning.run_plan import Plan, Settings
from raysp.sink import run_record
from raysp.sink.run_record import CODE
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, file_parts, read_code
from raysp.specs.steps import Label
from raysp.specs.values import JsonValue, to_json

LABEL_VERSION = 7
"""Version of labels, increased with every change of raysp that changes a label."""
HALF_LABEL_VERSION = 11
"""Version of labels in half precision, increased with each change of these."""


def label_parts(pipeline: Pipeline, settings: Iterable[Settings], code: UserCode | None = None) -> dict[str, JsonValue]:
    """Return everything that can change a label, by the dotted names used in reports of differences.

    Args:
        pipeline: the pipeline.
        settings: those of each `Label` step.
        code: code of functions and specs from outside raysp; None: the current code.
    """
    code = read_code(pipeline) if code is None else code
    of_labels = iter(settings)
    version = LABEL_VERSION
    parts: dict[str, JsonValue] = {"source.id": pipeline.source.id, "source.audio": pipeline.source.audio}
    for index, step in enumerate(pipeline.steps):
        fields = step.label_fields()
        if isinstance(step, Label):
            resolved = next(of_labels)
            if resolved.dtype in ("bfloat16", "float16"):
                version = HALF_LABEL_VERSION
            for unimportant in ("checkpoint", "pool", "batch_seconds", "device"):
                del fields[unimportant]
            fields["outputs"] = [output.label_fields(resolved.file_digests) for output in step.outputs]
            fields |= {"checkpoint_digest": resolved.checkpoint_digest, "dtype": resolved.dtype}
            if step.backend in (None, "torch"):
                del fields["backend"]  # as in sinks made before there was a choice
            if resolved.library and resolved.checkpoint.backend not in NAMED:
                fields["package"] = resolved.library
            if step.windows == "speech":
                fields["windows_by"] = step.speech.label_fields(resolved.file_digests)
            if resolved.fingerprint_seconds is not None:
                fields["batch_seconds"] = resolved.fingerprint_seconds
        parts |= {f"steps.{index}.{key}": value for key, value in fields.items()}
    return {"label_version": version, **parts, **code.parts()}


def staged_parts(pipeline: Pipeline, parts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return those parts of a pipeline that can change what is staged: all up to the last `Label`."""
    steps = pipeline.steps[: -len(pipeline.flow.behind[-1])]
    behind = tuple(f"steps.{place}." for place in range(len(steps), len(pipeline.steps)))
    code = read_code(replace(pipeline, steps=steps)).parts()
    return {
        name: value
        for name, value in parts.items()
        if not name.startswith(behind) and (not name.startswith(CODE) or name in code)
    }


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


def check_recorded(record: run_record.RunRecord, plan: Plan) -> None:
    """Raise ChangedError if a sink belongs to another pipeline than that of a plan."""
    if record.fingerprint != plan.fingerprint and run_record.is_open(plan.sink.store, record, plan.stage_id):
        record = replace(record, fingerprint=plan.fingerprint)
    current = replace(
        record,
        fingerprint=plan.fingerprint,
        parts=plan.parts,
        file_parts=file_parts(plan.pipeline),
        pipeline=to_json(plan.pipeline),
    )
    run_record.check_same(plan.sink.store.url, record, current)
