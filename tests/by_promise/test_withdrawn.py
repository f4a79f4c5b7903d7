"""Recordings and shards that left the source, and forgotten ids: `raysp status` counts and names them."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import CHECKPOINT, digits_table, write_shard
from tests.kit import pipeline_file

DIGITS = digits_table(4)
NONE = {"recordings": 0, "ids": [], "shards": 0, "shard_names": [], "forgotten": 0, "forgotten_ids": []}


def made(tmp_path, url: str, **fields: object) -> raysp.Pipeline:
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]
    return raysp.Pipeline(raysp.Shards(url, **fields), steps=steps, sink=raysp.Parquet(f"{tmp_path}/out"))


@pytest.fixture
def folder(tmp_path):
    """Write a folder of four recordings."""
    for row in DIGITS.to_pylist():
        place = tmp_path / "in" / f"{row['id']}.wav"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(row["audio"]["bytes"])
    return tmp_path / "in"


def withdrawn(raysp_command, sink) -> dict[str, object]:
    return json.loads(raysp_command("status", sink, "--json").out)["withdrawn"]


@pytest.mark.parametrize("id_column", ["id", None])
def test_recordings_that_left_a_folder_are_named_until_they_are_forgotten(folder, tmp_path, raysp_command, id_column):
    pipeline, sink = made(tmp_path, str(folder), id=id_column), tmp_path / "out"
    raysp.run(pipeline, engine="here")
    assert withdrawn(raysp_command, sink) == NONE
    ids = [row["id"] for file in sink.glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    first, *_, last = sorted(folder.iterdir())
    moved = [shutil.move(one, tmp_path / one.name) for one in (first, last)]
    gone = [ids[0], ids[-1]]
    planned = raysp_command("plan", pipeline_file(tmp_path / "labels.py", pipeline), "--sample", "0")
    assert f"2 recordings no longer in the source, {gone[0]}, {gone[1]}" in " ".join(planned.err.split())
    assert raysp.run(pipeline, engine="here").rows == 0
    assert withdrawn(raysp_command, sink) == {**NONE, "recordings": 2, "ids": gone}
    shown = " ".join(raysp_command("status", sink).out.split())
    assert f"2 recordings ({gone[0]}, {gone[1]}): no longer in the source" in shown
    assert f"raysp forget {sink} ID" in shown
    assert raysp_command("forget", sink, gone[0]).code == 0
    found = {**NONE, "recordings": 1, "ids": gone[1:], "forgotten": 1, "forgotten_ids": gone[:1]}
    assert withdrawn(raysp_command, sink) == found
    assert f"1 id ({gone[0]}); their labels were removed" in " ".join(raysp_command("status", sink).out.split())
    shutil.move(moved[1], last)
    raysp.run(pipeline, engine="here")
    assert withdrawn(raysp_command, sink) == {**NONE, "forgotten": 1, "forgotten_ids": gone[:1]}


def test_shards_that_left_are_named_until_all_their_rows_are_forgotten(tmp_path, raysp_command):
    for name, first in (("a", 0), ("b", 2)):
        write_shard(tmp_path / "in" / f"{name}.parquet", table=DIGITS.slice(first, 2))
    pipeline, sink = made(tmp_path, f"{tmp_path}/in/*.parquet"), tmp_path / "out"
    raysp.run(pipeline, engine="here")
    (tmp_path / "in" / "b.parquet").unlink()
    raysp.run(pipeline, engine="here")
    assert withdrawn(raysp_command, sink) == {**NONE, "shards": 1, "shard_names": ["b.parquet"]}
    assert "1 shard (b.parquet): no longer in the source" in " ".join(raysp_command("status", sink).out.split())
    raysp.forget(str(sink), DIGITS.column("id").to_pylist()[2:], pipeline=pipeline)
    found = withdrawn(raysp_command, sink)
    assert (found["shards"], found["shard_names"], found["forgotten"]) == (0, [], 2)
