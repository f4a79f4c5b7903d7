"""A small corpus, and a run over it by a Whisper, that runs in this process and on Ray share."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import raysp
from raysp.audio.waveforms import cut_windows
from tests.backends.theirs import RATE, WINDOW_SECONDS, labelling, written
from tests.corpora import AUDIO, wav, write_shard

LABEL = {"backend": "transformers", "window_seconds": WINDOW_SECONDS, "overlap_seconds": 0.5}


def write_corpus(folder: Path) -> Path:
    """Write a shard with a short row, one of three windows, a damaged one and one that is too short."""
    table = pq.read_table(write_shard(folder / "in" / "a.parquet", 4))
    recordings = [wav(9_000, seed=1), wav(80_000, seed=2), b"no recording", wav(100)]
    audio = [{"bytes": one, "path": None} for one in recordings]
    write_shard(folder / "in" / "a.parquet", table=table.set_column(1, "audio", [pa.array(audio, AUDIO)]))
    return folder


def pipeline(folder: Path, checkpoint: Path, **label: object) -> raysp.Pipeline:
    step = raysp.Label(str(checkpoint), **{**LABEL, "outputs": [raysp.Transcript()], **label})
    return raysp.Pipeline(
        source=raysp.Shards(str(folder / "in")), steps=[raysp.Decode(), step], sink=raysp.Parquet(str(folder / "out"))
    )


def check_run(folder: Path, whisper: Path) -> None:
    """Label, compare with a loop over rows and windows, and run again."""
    made = pipeline(folder, whisper)
    assert raysp.run(made).rows == 4
    rows = pq.read_table(folder / "out" / "a.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "skipped"]
    windowing = labelling(whisper, raysp.Transcript()).windowing
    for row, (samples, seed) in zip(rows, [(9_000, 1), (80_000, 2)], strict=False):
        recording = raysp.audio.decode(wav(samples, seed=seed), sample_rate=RATE) / np.float32(32768)
        windows = [window for window, _ in cut_windows(iter([recording]), windowing)]
        assert row["pred_text"] == " ".join(text for text in written(whisper, windows) if text)
    assert raysp.plan(made).rows_todo == 0
    assert raysp.verify(str(folder / "out"), sample=4, trust=True).differences == ()
