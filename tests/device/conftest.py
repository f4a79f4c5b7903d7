import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

import raysp
from tests import kit
from tests.corpora import CHECKPOINT, samples_of
from tests.device import stand_in
from tests.device.class_cases import make_checkpoint
from tests.ops.waves import assert_alike

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


def labelling(checkpoint: Path, outputs: Sequence[Any], device: str) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that labels waveforms, and texts if an output reads some, on a device."""
    options = {"batch_seconds": 8, "window_seconds": 2.5, "overlap_seconds": 0.5, "dtype": "float32"}
    label = raysp.Label(str(checkpoint), outputs=outputs, device=device, **options)
    of_rows = raysp.Labeller([raysp.Decode(), label])
    reads_texts = any(getattr(output, "text", None) for output in outputs)

    def rows(waves: Sequence[np.ndarray], texts: Sequence[str] = ()) -> list[dict[str, Any]]:
        return of_rows.arrays(waves, 16_000, columns={"text": texts} if reads_texts else None).to_pylist()

    return rows


def spoken(count: int) -> list[tuple[np.ndarray, str]]:
    """Return spoken digits at 16 kHz with their texts."""
    return [(soxr.resample(samples_of(row["audio"]), 8_000, 16_000), row["text"]) for row in kit.digits(count)]


assert_same = functools.partial(assert_alike, rel=2e-3, abs=2e-3)
"""Compare labels: numbers within a tolerance, all else exactly."""
