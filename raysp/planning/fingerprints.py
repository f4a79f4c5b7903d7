"""The fingerprint of a pipeline with resolved settings."""

from collections.abc import Mapping

from raysp.planning.checkpoints import checkpoint_folder, digest_of
from raysp.planning.plans import Settings
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, fingerprint, label_parts
from raysp.specs.values import JsonValue

AUDIO_ROOT = "source.audio_root"
"""Part of the fingerprints of older sinks: true where the pipeline that began them had one."""


def hash_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    code: UserCode | None = None,
    recorded: Mapping[str, JsonValue] | None = None,
) -> tuple[dict[str, JsonValue], str]:
    """Collect what can change a label and hash it.

    Args:
        pipeline: the pipeline.
        settings: its resolved values.
        code: its code from outside raysp; None: read now.
        recorded: parts of the sink's record; None: there is none, or they do not bind.
    """
    digest = digest_of(checkpoint_folder(pipeline))
    parts = label_parts(
        pipeline,
        checkpoint_digest=digest,
        dtype=settings.dtype,
        batch_seconds=settings.fingerprint_seconds,
        code=code,
    )
    if recorded and AUDIO_ROOT in recorded:
        parts[AUDIO_ROOT] = recorded[AUDIO_ROOT]
    return parts, fingerprint(parts)
