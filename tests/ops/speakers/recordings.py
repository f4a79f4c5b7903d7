"""Recordings of several speakers: bundled digits, joined."""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import soxr

from benchmarks.inputs.corpus import read_utterances
from tests.corpora import AUDIO, DEMO, write_shard

RATE = 16_000


@functools.cache
def digits() -> dict[str, list[np.ndarray]]:
    """Return the bundled digits at 16 kHz by speaker."""
    scale = np.float32(32768)
    return {
        speaker: [soxr.resample(one.samples / scale, one.sample_rate, RATE) for one in utterances]
        for speaker, utterances in read_utterances(f"{DEMO}/audio/*.parquet").items()
    }


def joined(speakers: Sequence[str], seed: int, *, gap: float = 0.2) -> np.ndarray:
    """Return a recording with a digit of each of some speakers, in order, with silence between them."""
    draw, voices = np.random.default_rng(seed), digits()
    parts = [np.zeros(int(gap * RATE), np.float32)]
    for speaker in speakers:
        of_speaker = voices[speaker]
        parts += [of_speaker[int(draw.integers(len(of_speaker)))], parts[0]]
    return np.concatenate(parts)


def write_recordings(folder: Path, waves: Sequence[np.ndarray], *, rows_a_group: int = 2) -> str:
    """Write a shard of recordings, and return a pattern of its path."""
    audio = []
    for wave in waves:
        file = io.BytesIO()
        soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
        audio.append({"bytes": file.getvalue(), "path": None})
    table = pa.table({"id": [f"r{row}" for row in range(len(waves))], "audio": pa.array(audio, AUDIO)})
    write_shard(folder / "a.parquet", table=table, row_group_size=rows_a_group)
    return f"{folder}/*.parquet"
