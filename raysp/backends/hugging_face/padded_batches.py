"""Classes of transformers whose texts do not depend on the padding of a batch, by what was measured.

`tests/backends/recognisers/test_padding.py` measures each class with a random checkpoint in float32: logits of a short
recording alone, and with a longer one in a batch. A class is listed if they differ by less than 1e-5. Windows of other
classes, and of these with versions of transformers that were not measured, are passes of their own.
"""

from raysp.backends import hf_installed

VERSIONS = ("5.24",)
"""Versions of transformers that were measured."""
PADDED = frozenset({
    "canary", "cohere_asr", "glmasr", "moss_transcribe_diarize", "nemotron3_5_asr", "nemotron_asr_streaming",
    "omniasr", "qwen2_5_omni", "qwen2_audio", "qwen3_asr", "qwen3_omni_moe", "voxtral",
})  # fmt: skip
"""Model types whose windows share padded batches."""


def why_alone(model_type: str) -> str:
    """Return the reason why each window of a model type is a pass of its own; empty if windows share passes."""
    version = hf_installed.version()
    if model_type not in PADDED:
        return "padding changes its results, or was not measured"
    if ".".join(version.split(".")[:2]) not in VERSIONS:
        return f"padded batches were not measured with transformers {version}, but with {', '.join(VERSIONS)}"
    return ""
