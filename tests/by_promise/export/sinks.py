"""Sinks that tests export."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import raysp
from tests.corpora import DEMO, a_pipeline, rewrite, rows_table, samples_of, write_shard

BROKEN = 4
"""A recording that cannot be decoded."""
IDS = ["a/b", "a b", "u2", "U2", "../up", "שלום", "nul", "u7"]
RATE = 16_000
WORDS = raysp.Transcript(words=True, chars=True)


def digits(num_rows: int = 8) -> pa.Table:
    """Return recordings of digits with hostile ids, of which one is broken."""
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, num_rows).to_pylist()
    for row, id_ in zip(rows, IDS, strict=False):
        row["id"] = id_
    rows[BROKEN]["audio"]["bytes"] = b"nothing"
    return pa.Table.from_pylist(rows)


def make_sink(folder: Path, *, rows: str = "all", output: object = WORDS) -> raysp.Pipeline:
    """Label two shards of digits, the second one in a folder."""
    table = digits()
    write_shard(folder / "in" / "a.parquet", table=table.slice(0, 5), row_group_size=2)
    write_shard(folder / "in" / "more" / "b.parquet", table=table.slice(5), row_group_size=2)
    source = raysp.Shards(f"{folder}/in", text="text")
    sink = raysp.Parquet(f"{folder}/out", keep=["speaker_id"], rows=rows)
    pipeline = a_pipeline(source, sink, label={"outputs": [output]})
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline


def with_errors(path: Path, rows: set[int]) -> None:
    """Make rows of a label shard error rows, as if their recordings had gone."""

    def failed(table: pa.Table) -> pa.Table:
        found = table.to_pylist()
        for row in (row for row in found if row["row"] in rows):
            row |= {"status": "error", "error_type": "not_found", "error_message": "no such file"}
            row |= {name: None for name in row if name.startswith("pred_")}
        return pa.Table.from_pylist(found, table.schema)

    rewrite(path, failed)


def make_folder_sink(folder: Path, names: Sequence[str]) -> raysp.Pipeline:
    """Label recordings of digits with some names in the folder `in`."""
    spoken = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).column("audio").to_pylist()
    for number, name in enumerate(names):
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(spoken[number % len(spoken)]["bytes"])
    pipeline = a_pipeline(f"{folder}/in", f"{folder}/out", label={"outputs": [WORDS]})
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline


def content(folder: Path) -> dict[str, bytes]:
    """Read all files of an export, without temporary ones."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".raysp/tmp/")}


def long_row() -> tuple[np.ndarray, list[str]]:
    """Return a recording of several digits with pauses between them (num_samples,), and their texts."""
    rows = [row for place, row in enumerate(digits().to_pylist()) if place != BROKEN]
    parts = [np.repeat(samples_of(row["audio"]["bytes"]), 2) for row in rows]  # of 8 kHz
    silence = np.zeros(RATE // 2, np.float32)
    whole = np.concatenate([piece for part in parts for piece in (silence, part)])
    return whole, [row["text"].upper() for row in rows]


def make_long_sink(folder: Path) -> raysp.Pipeline:
    """Label a shard of two recordings of several digits each, and of noise, by their embedded bytes."""
    file = io.BytesIO()
    soundfile.write(file, long_row()[0], RATE, format="WAV", subtype="PCM_16")
    table = rows_table(2, audio=file.getvalue(), prefix="long/")
    write_shard(folder / "in" / "a.parquet", table=table, row_group_size=1)
    write_shard(folder / "in" / "b.parquet", table=table.slice(0, 1))
    pipeline = a_pipeline(f"{folder}/in", f"{folder}/out", label={"outputs": [WORDS]})
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline


def make_manifest_sink(folder: Path) -> raysp.Pipeline:
    """Label rows of a manifest: a whole file, and excerpts of a long one."""
    folder.mkdir(exist_ok=True)
    whole, _ = long_row()
    soundfile.write(folder / "long.wav", whole, RATE, subtype="PCM_16")
    soundfile.write(folder / "short.wav", whole[: 2 * RATE], RATE, subtype="PCM_16")
    lines = [
        {"audio_filepath": "short.wav", "text": "one"},
        {"audio_filepath": "long.wav", "offset": 0.5, "duration": 1.25, "text": "two"},
        {"audio_filepath": "long.wav", "offset": 1.5, "duration": 2.0, "text": "three"},
        {"audio_filepath": "gone.wav", "text": "four"},
    ]
    (folder / "m.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    source = raysp.Shards(f"{folder}/m.jsonl", text="text")
    pipeline = a_pipeline(source, f"{folder}/out", label={"outputs": [raysp.Transcript()]})
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline
