"""Sources that grow after a run: the same call labels what is new, and changes no label shard that is there."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import a_pipeline, wav, write_shard
from tests.here import run_without_ray


def parquet(folder: Path, first: int, end: int) -> str:
    for number in range(first, end):
        write_shard(folder / "in" / f"{number}.parquet", 1)
    return f"{folder}/in/*.parquet"


def files(folder: Path, first: int, end: int) -> str:
    (folder / "in").mkdir(exist_ok=True)
    for number in range(first, end):
        (folder / "in" / f"{number}.wav").write_bytes(wav(seed=number))
    return f"{folder}/in"


def manifest(folder: Path, first: int, end: int) -> str:
    files(folder, first, end)
    with (folder / "m.jsonl").open("a") as lines:
        lines.writelines(json.dumps({"audio_filepath": f"in/{number}.wav"}) + "\n" for number in range(first, end))
    return f"{folder}/m.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("write", [parquet, files, manifest], ids=["parquet", "folder", "manifest"])
def test_rows_that_are_added_are_planned_estimated_and_labelled_and_the_others_stay(
    tmp_path, monkeypatch, write: Callable[[Path, int, int], str]
):
    run_without_ray(monkeypatch)
    out = tmp_path / "out"
    pipeline = a_pipeline(write(tmp_path, 0, 2), out)
    raysp.run(pipeline, progress=False)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.parquet")}
    write(tmp_path, 2, 5)
    plan = raysp.plan(pipeline)
    estimate = raysp.estimate(plan)
    assert (plan.num_rows, plan.rows_todo, estimate.rows, estimate.rows_sampled) == (5, 3, 3, 3)
    assert estimate.speed.origin.startswith("receipts of 1 run ")
    ran = raysp.run(pipeline, progress=False)
    assert (ran.exit_code, ran.rows) == (0, 3)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    rows = [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 5
    assert {row["status"] for row in rows} == {"ok"}
    assert raysp.status(str(out)).is_complete
    assert raysp.plan(pipeline).rows_todo == 0
