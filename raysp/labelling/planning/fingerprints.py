"""Fingerprint of a pipeline with resolved settings."""

from collections.abc import Mapping
from dataclasses import replace

from raysp.backends.finding import NAMED
from raysp.errors import ChangedError
from raysp.labelling.planning.planned_checkpoint import digest_of
from raysp.labelling.planning.run_plan import Hashed, Settings
from raysp.sink import run_record
from raysp.sink.run_record import CODE
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, file_parts, fingerprint, label_parts, read_code
from raysp.specs.values import JsonValue, to_json
from raysp.storage.store import Store


def hash_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    code: UserCode | None = None,
) -> Hashed:
    """Return everything that can change a label, with its hashes.

    Args:
        pipeline: the pipeline.
        settings: its resolved values.
        code: its code from outside raysp; None: read now.
    """
    checkpoint = settings.checkpoint
    digest = digest_of(checkpoint.path, checkpoint.backend, pipeline.label.language)
    parts = label_parts(
        pipeline,
        checkpoint_digest=digest,
        dtype=settings.dtype,
        batch_seconds=settings.fingerprint_seconds,
        packed_on=settings.packed_on,
        code=code,
        file_digests=settings.file_digests,
        package="" if checkpoint.backend in NAMED else settings.library,
    )
    return Hashed(parts, fingerprint(parts), _stage_id(pipeline, parts))


def _stage_id(pipeline: Pipeline, parts: Mapping[str, JsonValue]) -> str:
    """Return the hash of the parts without those of steps behind the last `Label`; empty if there are none."""
    if not pipeline.filters:
        return ""
    steps = pipeline.source_steps
    behind = tuple(f"steps.{place}." for place in range(len(steps), len(pipeline.steps)))
    code = read_code(replace(pipeline, steps=steps)).parts()
    return fingerprint(
        {
            name: value
            for name, value in parts.items()
            if not name.startswith(behind) and (not name.startswith(CODE) or name in code)
        }
    )


def check_recorded(
    store: Store,
    record: run_record.RunRecord,
    pipeline: Pipeline,
    settings: Settings,
    hashed: Hashed,
) -> None:
    """Raise ChangedError if a sink belongs to another pipeline; if only packs are missing, with the reason.

    Args:
        store: the sink.
        record: record of the sink.
        pipeline: the pipeline.
        settings: its resolved values.
        hashed: everything that can change a label.
    """
    parts, fingerprint, stage_id = hashed
    if record.fingerprint != fingerprint and run_record.is_open(store, record, stage_id or fingerprint):
        record = replace(record, fingerprint=fingerprint)
    files, fields = file_parts(pipeline), to_json(pipeline)
    try:
        run_record.check_same(
            store.url, record, fingerprint=fingerprint, parts=parts, file_parts=files, pipeline=fields
        )
    except ChangedError as error:
        if not record.resolved.in_packs or settings.packs is None or settings.packs.is_on:
            raise
        raise ChangedError(f"{error}. Here {settings.packs}", error.differences) from None
