"""What tests of specs, planning and ops share: small shards, recordings made on the spot, pipelines over them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import raysp

DEMO = Path(__file__).parents[1] / "pipelines" / "demo"
CHECKPOINT = DEMO / "unispeech-digits-ctc"
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def wav(num_samples: int = 1600, rate: int = 16_000, subtype: str = "PCM_16", seed: int = 0) -> bytes:
    """Make a recording of noise."""
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def rows_table(num_rows: int, *, audio: bytes | None = None, prefix: str = "u") -> pa.Table:
    audio = wav() if audio is None else audio
    return pa.table(
        {
            "id": [f"{prefix}{row}" for row in range(num_rows)],
            "audio": pa.array([{"bytes": audio, "path": None}] * num_rows, AUDIO),
            "text": ["one two"] * num_rows,
            "language": ["en" if row % 2 else "de" for row in range(num_rows)],
        }
    )


def write_shard(path: Path, num_rows: int = 3, *, table: pa.Table | None = None, row_group_size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = rows_table(num_rows, prefix=path.stem) if table is None else table
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def a_pipeline(source: object = "in/*.parquet", sink: object = "out", **fields: object) -> raysp.Pipeline:
    """Make a pipeline; `source` and `sink` are specs or urls, `label` changes the `Label` step."""
    label = {"outputs": [raysp.Transcript()], **fields.pop("label", {})}
    steps = [raysp.Decode(), *fields.pop("keep", ()), raysp.Label(str(CHECKPOINT), **label)]
    return raysp.Pipeline(
        source=source if isinstance(source, raysp.Shards) else raysp.Shards(source),
        steps=fields.pop("steps", steps),
        sink=sink if isinstance(sink, raysp.Parquet) else raysp.Parquet(str(sink)),
        **fields,
    )


def label_twice(folder: Path) -> None:
    """Label six spoken digits to `A`, and by a pipeline that skips one of them to `B`."""
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 6)
    write_shard(folder / "in" / "a.parquet", table=table)
    source = raysp.Shards(f"{folder}/in/*.parquet", text="text")
    raysp.run(a_pipeline(source, raysp.Parquet(f"{folder}/A", keep=["speaker_id"])), engine="here", progress=False)
    skipping = a_pipeline(source, raysp.Parquet(f"{folder}/B"), keep=[raysp.Keep(max_seconds=0.4)])
    raysp.run(skipping, engine="here", progress=False)
