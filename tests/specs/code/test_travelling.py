"""A user's code on a worker: the hashed files run there, not those on that machine's disk."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp.specs import code as user_code
from tests.corpora import CHECKPOINT, write_shard

OUTPUT = """
import raysp
from raysp.specs import spec

@spec
class Shouted(raysp.Transcript):
    name: str = "shouted"
"""


def a_pipeline(folder: Path, sink: str = "out", function: str = "my_rules:numbers") -> raysp.Pipeline:
    """Make a pipeline with a function and an output of the user."""
    import my_output

    write_shard(folder / "in" / "a.parquet", 2)
    return raysp.Pipeline(
        raysp.Shards(f"{folder}/in/*.parquet"),
        steps=[
            raysp.Decode(),
            raysp.Map(function, adds={"number": "int64", "policy": "string"}, reads=["id"]),
            raysp.Label(str(CHECKPOINT), outputs=[my_output.Shouted()]),
        ],
        sink=raysp.Parquet(f"{folder}/{sink}"),
    )


def labels(folder: Path, sink: str = "out") -> list[tuple[int, str]]:
    """Return the columns that the function adds, and check that of the output."""
    table = pq.read_table(folder / sink)
    assert "shouted_text" in table.column_names
    return list(zip(table["number"].to_pylist(), table["policy"].to_pylist(), strict=True))


@pytest.fixture
def worker(monkeypatch):
    """Have this process take code as a worker does."""
    monkeypatch.setattr(user_code, "_PROCESS", "a worker")
    meta_path = [*sys.meta_path]
    yield lambda code: code.install()
    sys.meta_path[:] = meta_path
    user_code._installed.clear()


def write(project, number: int) -> None:
    project.write(
        my_rules="import os\nimport at_top\ndef numbers(table):\n    import pack.late\n"
        "    number, policy = at_top.X + pack.late.X, os.environ.get('OMP_WAIT_POLICY')\n"
        "    return {'number': [number] * table.num_rows, 'policy': [policy] * table.num_rows}\n",
        at_top=f"X = {number}\n",
        pack__="",
        pack__late=f"from .deep import X\nX = 10 * {number}\n",
        pack__deep="X = 0\n",
        my_output=OUTPUT,
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_run_the_code_that_was_planned_regardless_of_their_disk(project, tmp_path, local_ray):
    for number in (1, 2):  # processes of Ray serve both runs
        project.forget()
        write(project, number)
        pipeline = a_pipeline(tmp_path, f"out-{number}")
        # Edited between plan and worker.
        raysp.run(pipeline, engine="ray", progress=False, on_plan=lambda _: write(project, 3))
        assert labels(tmp_path, f"out-{number}") == [(11 * number, "PASSIVE")] * 2
