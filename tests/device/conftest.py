import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soxr

from raysp.ops import late_steps
from tests import kit
from tests.corpora import CHECKPOINT, samples_of
from tests.device import output_cases, stand_in
from tests.device.class_cases import make_checkpoint
from tests.ops.waves import assert_alike, block_of

stand_in.install()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Callable[[str], Path]:
    """Return the folder of a checkpoint by its name, which is made once."""

    @functools.cache
    def made(name: str) -> Path:
        if name == "demo":
            return CHECKPOINT
        folder = tmp_path_factory.mktemp("made") / "checkpoint"
        make_checkpoint(name, folder)
        return folder

    return made


def labelling(checkpoint, outputs: Sequence[Any], device: str):
    """Return a function that labels waveforms, and texts if an output reads some, on a device."""
    op = output_cases.labelling(checkpoint, outputs, device, "float32")

    def label(waves: Sequence[np.ndarray], texts: Sequence[str] = ()) -> list[dict[str, Any]]:
        block = block_of(waves)
        for name in op.reads:
            block = block.append_column(late_steps.CARRIED + name, pa.array(texts))
        return op(block)[0].to_pylist()

    return label


def spoken(count: int) -> list[tuple[np.ndarray, str]]:
    """Return spoken digits at 16 kHz with their texts."""
    return [(soxr.resample(samples_of(row["audio"]), 8_000, 16_000), row["text"]) for row in kit.digits(count)]


assert_same = functools.partial(assert_alike, rel=2e-3, abs=2e-3)
"""Compare labels: numbers within a tolerance, all else exactly."""
