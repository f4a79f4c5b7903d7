"""A try-out of a few rows: labelled in this process, without Ray."""

import json
import os
import subprocess
import sys
from collections import Counter

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import DEMO, a_pipeline, write_shard
from tests.labelling.engine.datasets.comparing import alike

MOST_MODULES = 161
"""Modules of raysp that a try-out may load."""
CODE = """
import sys
from raysp.cli import main

try:
    main(sys.argv[2:])
finally:
    open(sys.argv[1], "w").write("\\n".join(sys.modules))
"""


def tried(pipeline: raysp.Pipeline, rows: int):
    return raysp.run(pipeline, rows=rows, engine="here", progress=False)


@pytest.mark.drivers
@pytest.mark.slow
def test_the_command_line_labels_three_rows_without_ray_and_by_few_modules(tmp_path):
    pipeline, names = DEMO.parent / "label_digits.py", tmp_path / "modules"
    command = [sys.executable, "-c", CODE, str(names), "run", str(pipeline), "--rows", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["pred_text"] for row in json.loads(done.stdout)["table"]] == ["THREE", "FIVE", "FOUR"]
    loaded = names.read_text().split()
    assert not {"ray", "ray.data"} & {*loaded}
    own = [name for name in loaded if name.partition(".")[0] == "raysp"]
    rooms = Counter(name.split(".")[1] for name in own if "." in name)
    assert len(own) <= MOST_MODULES, f"{len(own)} modules, {len(own) - MOST_MODULES} too many: {rooms.most_common()}"
    assert [*tmp_path.iterdir()] == [names]


@pytest.mark.slow
def test_labels_do_not_depend_on_the_threads_of_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    write_shard(
        tmp_path / "in" / "a.parquet", table=pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 20)
    )
    asked = [raysp.Pool(cpus=1), raysp.Pool(cpus=2), raysp.Pool()]
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    one, *others = (
        tried(a_pipeline(f"{tmp_path}/in", tmp_path / "out", label={"pool": pool, "outputs": outputs}), 20).table
        for pool in asked
    )
    assert one["pred_text"][:3].to_pylist() == ["THREE", "FIVE", "FOUR"]
    for other in others:
        assert other["pred_text"].equals(one["pred_text"])
        assert alike(other.to_pylist(), one.to_pylist())
