"""A user's code on a worker: the hashed files run there, not those on that machine's disk."""

import importlib

import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, write_shard

OUTPUT = """
import raysp
from raysp.specs import spec

@spec
class Shouted(raysp.Transcript):
    name: str = "shouted"
"""


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
@pytest.mark.drivers
@pytest.mark.slow
def test_workers_run_the_code_that_was_planned_regardless_of_their_disk(project, tmp_path, local_ray):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    for number in (1, 2):  # processes of Ray serve both runs
        project.forget()
        write(project, number)
        step = raysp.Map("my_rules:numbers", adds={"number": "int64", "policy": "string"}, reads=["id"])
        outputs = [importlib.import_module("my_output").Shouted()]
        sink = tmp_path / f"out-{number}"
        pipeline = a_pipeline(f"{tmp_path}/in", sink, keep=[step], label={"outputs": outputs})
        # Edited between plan and worker.
        raysp.run(pipeline, engine="ray", progress=False, on_plan=lambda _: write(project, 3))
        assert kit.rows(sink, "number", "policy") == [{"number": 11 * number, "policy": "PASSIVE"}] * 2
        assert "shouted_text" in kit.rows(sink)[0]
