"""Speech in memory: the digits of the demo, read without soundfile, and rows and blocks of it of any length."""

import io
import wave
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysp.ops.rows import RowStatus, statuses_table, with_waves

RATE = 16_000
DEMO = Path(__file__).parents[2] / "pipelines" / "demo"
CHECKPOINT = DEMO / "unispeech-digits-ctc"
Waves = Sequence[np.ndarray]


@cache
def digits() -> tuple[tuple[np.ndarray, str], ...]:
    """Return spoken digits, int16 at `RATE`, with their texts; noise where the demo is not there."""
    shards = sorted((DEMO / "audio").glob("*.parquet"))
    if not shards:
        noise = np.random.default_rng(0)
        return tuple(((noise.standard_normal(RATE // 2) * 3000).astype(np.int16), "one") for _ in range(50))
    rows = pq.read_table(shards[0], columns=["audio", "text"]).to_pylist()
    return tuple((read_wav(row["audio"]["bytes"]), row["text"]) for row in rows)


def read_wav(data: bytes) -> np.ndarray:
    """Return a mono WAV of 16 bits at `RATE`, samples between those of a lower rate on straight lines."""
    with wave.open(io.BytesIO(data)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError(f"WAV of {file.getnchannels()} channels and {file.getsampwidth()} bytes, expected 1 and 2")
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    if rate == RATE:
        return samples
    times = np.arange(len(samples) * RATE // rate) * (rate / RATE)
    return np.interp(times, np.arange(len(samples)), samples).astype(np.int16)


@cache
def stream(seconds: int) -> np.ndarray:
    """Return so much speech without a pause."""
    return np.resize(np.concatenate([samples for samples, _ in digits()]), seconds * RATE)


def rows(lengths: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    """Return rows of speech of so many seconds each, from different places of it."""
    speech = stream(int(max(lengths)) + 120)
    starts = np.random.default_rng(seed).integers(0, 100 * RATE, len(lengths))
    return [speech[at : at + round(one * RATE)] for at, one in zip(starts, lengths, strict=True)]


def lengths_of(hours: float, seed: int = 0) -> list[float]:
    """Return lengths of rows of 1 to 30 s, 12 s on average, as in corpora of training."""
    random = np.random.default_rng(seed)
    return (random.beta(1.4, 2.3, max(4, round(hours * 300))) * 29 + 1).round(2).tolist()


def noise(lengths: Sequence[float], seed: int = 1) -> list[np.ndarray]:
    """Return rows of noise."""
    random = np.random.default_rng(seed)
    return [(1600 * random.standard_normal(round(RATE * one))).astype(np.int16) for one in lengths]


def block_of(waves: Waves, texts: Sequence[str] | None = None) -> pa.Table:
    """Return the rows as decoding hands them to a model."""
    statuses = [RowStatus(row) for row in range(len(waves))]
    for status, samples in zip(statuses, waves, strict=True):
        status.seconds = len(samples) / RATE
    block = with_waves(statuses_table(statuses), waves)
    if texts is None:
        return block
    from raysp.ops.late_steps import CARRIED

    return block.append_column(f"{CARRIED}text", pa.array(texts))
