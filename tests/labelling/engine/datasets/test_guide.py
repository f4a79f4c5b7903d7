"""The programs of the documents label the bundled digits as a run does."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.labelling.engine.datasets.conftest import assert_same_rows, by_id

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[4]
SECTION = (
    (REPOSITORY / "docs/reference/api.md").read_text().partition("## In a Ray Data program")[2].partition("\n## ")[0]
)
PROGRAM, ACTORS, _ = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.mark.drivers
def test_the_programs_of_the_guide_label_the_digits_as_a_run_does(local_ray, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipelines").symlink_to(REPOSITORY / "pipelines")
    program = {"__name__": "__main__"}  # its functions are pickled by value, as those of a main program
    text = PROGRAM.replace("digit-labels", str(tmp_path / "digit-labels"))  # workers of this Ray have another folder
    exec(compile(text, "guide.py", "exec"), program)
    assert len(PROGRAM.splitlines()) <= 25
    shards, sink = raysp.Shards("pipelines/demo/audio/*.parquet"), raysp.Parquet("labels", keep=["text"])
    raysp.run(
        raysp.Pipeline(shards, steps=[raysp.Decode(), program["label"]], sink=sink), engine="here", progress=False
    )
    expected = by_id(pq.read_table("labels"))
    found = by_id(pq.read_table("digit-labels"))
    assert len(found) == 57
    agreed = {name: row.pop("agrees") for name, row in found.items()}
    assert 50 < sum(agreed.values()) <= 57
    assert_same_rows(found, {name: {**expected[name], "row": None} for name in found})
    text = ACTORS.replace("num_gpus=1", "num_gpus=0").replace("size=2", "size=1")  # for the one block of few digits
    exec(compile(text, "guide.py", "exec"), program)
    row = program["labels"].take(1)[0]
    assert (row["status"], "pred_text" in row, "text" in row) == ("ok", True, True)
