"""Calls of several channels from recorded digits, and their labels."""

import functools
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import raysp
from benchmarks.inputs.corpus import read_utterances
from tests.corpora import AUDIO, CHECKPOINT, DEMO, a_pipeline, write_shard

RATE = 16_000
Wave = np.ndarray
Row = dict[str, object]
ALONE = 0.1
"""Seconds of a forward pass that holds one window: sums are added up in one order."""
TIMED = raysp.Transcript(words=True, chars=True)


@functools.cache
def speakers() -> list[list[Wave]]:
    """Return the recorded digits of the demo's speakers."""
    found = read_utterances(f"{DEMO}/audio/*.parquet", RATE)
    return [[one.samples for one in found[name]] for name in found]


def side(speaker: int, pauses: Sequence[float]) -> Wave:
    """Return recorded digits of one speaker, each after a pause in seconds, as 16-bit samples."""
    spoken = speakers()[speaker]
    parts = [(np.zeros(int(pause * RATE)), spoken[number]) for number, pause in enumerate(pauses)]
    return np.concatenate([one for pair in parts for one in pair]).astype(np.int16)


def encoded(channels: Sequence[Wave], subtype: str = "PCM_16") -> bytes:
    """Encode channels, the shorter ones followed by silence, as one recording."""
    file = io.BytesIO()
    soundfile.write(file, np.stack(of_one_length(channels), axis=1), RATE, format="WAV", subtype=subtype)
    return file.getvalue()


def of_one_length(channels: Sequence[Wave]) -> list[Wave]:
    """Return channels with silence behind the shorter ones."""
    longest = max(map(len, channels))
    return [np.pad(one, (0, longest - len(one))) for one in channels]


def labelled(folder: Path, recordings: Sequence[bytes | None], channel: str = "each", **label: object) -> list[Row]:
    """Label recordings, and return the rows of the label shard."""
    values = [{"bytes": one, "path": None} for one in recordings]
    table = pa.table({"id": [f"u{i}" for i in range(len(values))], "audio": pa.array(values, AUDIO)})
    write_shard(folder / "in" / "a.parquet", table=table)
    options = {"outputs": (TIMED,), "batch_seconds": ALONE, **label}
    steps = [raysp.Decode(channel=channel), raysp.Label(str(CHECKPOINT), **options)]
    made = a_pipeline(f"{folder}/in/*.parquet", f"{folder}/out", steps=steps, max_error_rate=1)
    raysp.run(made, engine="here", progress=False)
    return pq.read_table(folder / "out" / "a.parquet").to_pylist()
