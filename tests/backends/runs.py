"""A small corpus, and a pipeline over it, by a Whisper unless another checkpoint is named."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import raysp
from tests.backends.theirs import WINDOW_SECONDS
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
