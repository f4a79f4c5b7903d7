import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr

from raysp.ops import late_steps
from tests.corpora import CHECKPOINT, DEMO
from tests.device import output_cases, stand_in
from tests.device.class_cases import make_checkpoint
from tests.ops.waves import block_of

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
    cells = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0, ["audio", "text"]).to_pylist()
    found = []
    for cell in cells[:count]:
        samples, rate = soundfile.read(io.BytesIO(cell["audio"]["bytes"]), dtype="float32")
        found.append((soxr.resample(samples, rate, 16_000), cell["text"]))
    return found


def assert_same(found: Any, expected: Any, tolerance: float = 2e-3) -> None:
    """Compare labels: numbers within a tolerance, all else exactly."""
    if isinstance(expected, float) and isinstance(found, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True)
    elif isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, tolerance)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key], tolerance)
    else:
        assert found == expected
