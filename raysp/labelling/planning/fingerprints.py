"""Fingerprint of a pipeline with resolved settings."""

from collections.abc import Mapping

from raysp.backends.finding import NAMED
from raysp.errors import ChangedError
from raysp.labelling.planning.planned_checkpoint import digest_of
from raysp.labelling.planning.run_plan import Settings
from raysp.sink import run_record
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, file_parts, fingerprint, label_parts
from raysp.specs.values import JsonValue, to_json


def hash_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    code: UserCode | None = None,
) -> tuple[dict[str, JsonValue], str]:
    """Return everything that can change a label, by dotted name, and its hash.

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
    return parts, fingerprint(parts)


def check_recorded(
    url: str,
    record: run_record.RunRecord,
    pipeline: Pipeline,
    settings: Settings,
    parts: Mapping[str, JsonValue],
    fingerprint: str,
) -> None:
    """Raise ChangedError if a sink belongs to another pipeline; if only packs are missing, with the reason.

    Args:
        url: url of the sink.
        record: record of the sink.
        pipeline: the pipeline.
        settings: its resolved values.
        parts: everything that can change a label, as `hash_pipeline` returns it.
        fingerprint: hash of `parts`.
    """
    files, fields = file_parts(pipeline), to_json(pipeline)
    try:
        run_record.check_same(url, record, fingerprint=fingerprint, parts=parts, file_parts=files, pipeline=fields)
    except ChangedError as error:
        if not record.resolved.in_packs or settings.packs is None or settings.packs.is_on:
            raise
        raise ChangedError(f"{error}. Here {settings.packs}", error.differences) from None
