"""Fingerprint of a pipeline with resolved settings."""

from collections.abc import Mapping

from raysp.backends.finding import NAMED
from raysp.labelling.planning.planned_checkpoint import digest_of
from raysp.labelling.planning.run_plan import Settings
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, fingerprint, label_parts
from raysp.specs.values import JsonValue

AUDIO_ROOT = "source.audio_root"
"""Part of the fingerprints of older sinks: true if their first pipeline had an audio root (docs/decisions/016)."""


def hash_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    code: UserCode | None = None,
    recorded: Mapping[str, JsonValue] | None = None,
) -> tuple[dict[str, JsonValue], str]:
    """Return everything that can change a label, by dotted name, and its hash.

    Args:
        pipeline: the pipeline.
        settings: its resolved values.
        code: its code from outside raysp; None: read now.
        recorded: parts of the sink's record; None: no record, or not binding.
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
    if recorded and AUDIO_ROOT in recorded:
        parts[AUDIO_ROOT] = recorded[AUDIO_ROOT]
    return parts, fingerprint(parts)
