"""Everything that can change a label, which the fingerprint covers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, read_code
from raysp.specs.steps import Label
from raysp.specs.values import JsonValue

LABEL_VERSION = 7
"""Version of labels, increased with every change of raysp that changes a label."""
HALF_LABEL_VERSION = 11
"""Version of labels in half precision, increased with each change of these."""


class Resolution(NamedTuple):
    """What the settings of a `Label` step are resolved to, as far as it can change a label."""

    checkpoint_digest: str
    """Hash of the checkpoint's weights, config and tokenizer."""
    dtype: str
    """Never "auto"."""
    batch_seconds: float | None = None
    """Budget if labels may depend on it, else None."""
    file_digests: Mapping[str, str] = MappingProxyType({})
    """Digests of further files that outputs read, by url."""
    package: str = ""
    """Distribution whose model runs the checkpoint, with version and hash of its code; empty: none."""


def label_parts(pipeline: Pipeline, *resolutions: Resolution, code: UserCode | None = None) -> dict[str, JsonValue]:
    """Return everything that can change a label, by the dotted names used in reports of differences.

    Args:
        pipeline: the pipeline.
        resolutions: one for each `Label` step.
        code: code of functions and specs from outside raysp; None: the current code.
    """
    code = read_code(pipeline) if code is None else code
    in_half = any(one.dtype in ("bfloat16", "float16") for one in resolutions)
    of_labels = iter(resolutions)
    parts: dict[str, JsonValue] = {
        "label_version": HALF_LABEL_VERSION if in_half else LABEL_VERSION,
        "source.id": pipeline.source.id,
        "source.audio": pipeline.source.audio,
    }
    for index, step in enumerate(pipeline.steps):
        fields = step.label_fields()
        if isinstance(step, Label):
            made = next(of_labels)
            for unimportant in ("checkpoint", "pool", "batch_seconds", "device"):
                del fields[unimportant]
            fields["outputs"] = [output.label_fields(made.file_digests) for output in step.outputs]
            fields |= {"checkpoint_digest": made.checkpoint_digest, "dtype": made.dtype}
            if step.backend in (None, "torch"):
                del fields["backend"]  # as in sinks made before there was a choice
            if made.package:
                fields["package"] = made.package
            if step.windows == "speech":
                fields["windows_by"] = step.speech.label_fields(made.file_digests)
            if made.batch_seconds is not None:
                fields["batch_seconds"] = made.batch_seconds
        parts |= {f"steps.{index}.{key}": value for key, value in fields.items()}
    return {**parts, **code.parts()}
