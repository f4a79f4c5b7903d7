"""Sinks that tests export."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import raysp
from tests.corpora import DEMO, a_pipeline, label_here, write_shard

BROKEN = 4
"""A recording that cannot be decoded."""
IDS = ["a/b", "a b", "u2", "U2", "../up", "שלום", "nul", "u7"]
WORDS = raysp.Transcript(words=True, chars=True)


def digits(num_rows: int = 8) -> pa.Table:
    """Return recordings of digits with hostile ids, of which one is broken."""
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, num_rows).to_pylist()
    for row, id_ in zip(rows, IDS, strict=False):
        row["id"] = id_
    rows[BROKEN]["audio"]["bytes"] = b"nothing"
    return pa.Table.from_pylist(rows)


def make_sink(folder: Path, *, rows: str = "all", output: raysp.Transcript = WORDS) -> raysp.Pipeline:
    """Label two shards of digits, the second one in a folder."""
    table = digits()
    write_shard(folder / "in" / "a.parquet", table=table.slice(0, 5), row_group_size=2)
    write_shard(folder / "in" / "more" / "b.parquet", table=table.slice(5), row_group_size=2)
    source = raysp.Shards(f"{folder}/in", text="text")
    sink = raysp.Parquet(f"{folder}/out", keep=["speaker_id"], rows=rows)
    pipeline = a_pipeline(source, sink, label={"outputs": [output]})
    label_here(pipeline)
    return pipeline


def content(folder: Path) -> dict[str, bytes]:
    """Read all files of an export, without temporary ones."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(".raysp/tmp/")}


def exported(folder: Path) -> dict[str, bytes]:
    """Read the files of an export that readers see."""
    return {name: data for name, data in content(folder).items() if not name.startswith(".raysp/")}
