"""What the programs share: rows of shards, waveforms, the windows of long recordings, and label files."""

import glob
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr

WINDOW_SECONDS = 30


def arguments() -> tuple[str, str, Path, str]:
    """Return the checkpoint, the shards, the folder of labels and the dtype of the model that the command names."""
    checkpoint, shards, out, dtype = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    return checkpoint, shards, Path(out), dtype


def rows(shards: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of all shards, in their order."""
    for name in sorted(glob.glob(shards)):
        yield from pq.read_table(name, columns=["id", "audio"]).to_pylist()


def waveform(encoded: bytes, sample_rate: int) -> np.ndarray:
    """Decode a recording to float32 samples (S,) of one channel."""
    samples, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, sample_rate, quality="HQ")


def windows(samples: np.ndarray, sample_rate: int) -> list[np.ndarray]:
    """Cut a recording into windows of equal length, of `WINDOW_SECONDS` at most."""
    return np.array_split(samples, max(1, -(-len(samples) // (WINDOW_SECONDS * sample_rate))))


def write(out: Path, labels: Mapping[str, str]) -> None:
    """Write the labels of all rows to one file."""
    pq.write_table(pa.table({"id": list(labels), "text": list(labels.values())}), out / "labels.parquet")
