"""Classes of transformers whose texts do not depend on the padding of a batch, by what was measured.

`tests/backends/recognisers/test_texts.py` measures each class with a random checkpoint in float32: texts and scores of
recordings alone, and in one batch. A class is listed if scores differ by less than 1e-5. Windows of other classes, and
of these with versions of transformers that were not measured, are passes of their own.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from raysp.backends import hf_installed
from raysp.errors import CheckpointError
from raysp.models.labelled_passes import LabellingModel

VERSIONS = ("5.24",)
"""Versions of transformers that were measured."""
PADDED = frozenset({
    "canary", "cohere_asr", "glmasr", "moss_transcribe_diarize", "nemotron3_5_asr", "nemotron_asr_streaming", "omniasr",
    "qwen2_5_omni", "qwen2_audio", "qwen3_asr", "qwen3_omni_moe", "voxtral", *hf_installed.OF_FEATURES,
})  # fmt: skip
"""Model types whose windows share padded batches."""

DIFFERENCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Largest difference of logits alone and in a padded batch that is rounding, as a share of the largest logit."""


def why_alone(model_type: str) -> str:
    """Return the reason why each window of a model type is a pass of its own; empty if windows share passes."""
    version = hf_installed.version()
    if model_type not in PADDED:
        return "padding changes its results, or was not measured"
    if ".".join(version.split(".")[:2]) not in VERSIONS:
        return f"padded batches were not measured with transformers {version}, but with {', '.join(VERSIONS)}"
    return ""


def check_pair(
    model: LabellingModel,
    scores_of: Callable[[Sequence[np.ndarray]], np.ndarray],
    seconds: Sequence[float] = (1.0, 2.6),
) -> None:
    """Compare a short recording alone with the same recording in a batch with a longer one.

    Args:
        model: the loaded checkpoint.
        scores_of: returns scores of the first of several recordings.
        seconds: seconds of the two recordings.

    Raises:
        CheckpointError: scores differ by more than rounding.
    """
    generator, rate = np.random.default_rng(0), model.summary.sample_rate
    waves = [generator.standard_normal(round(s * rate)).astype(np.float32) * 0.1 for s in seconds]
    alone, together = (scores_of(some) for some in (waves[:1], waves))
    difference = np.abs(alone - together).max()
    bound = DIFFERENCES.get(model.dtype, 1e-2) * max(1.0, np.abs(alone).max())
    if not difference <= bound:
        raise CheckpointError(
            f"{model.summary.path}: the scores of a recording differ by {difference:.2g} alone and in a padded batch "
            f"in {model.dtype}, expected at most {bound:.2g}; set batch_seconds=0.01, by which each window is a pass "
            "of its own"
        )
