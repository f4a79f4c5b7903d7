"""A try-out of a few rows: labelled in this process, without Ray."""

import json
import os
import subprocess
import sys
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import AUDIO, DEMO, a_pipeline, write_shard
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


@pytest.fixture
def digits(tmp_path):
    """Five digits in two shards; the fourth is no recording, the fifth is empty."""
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 5).select(["id", "audio", "text"])
    audio = rows["audio"].to_pylist()
    audio[3:] = [{"bytes": b"no audio at all", "path": None}, {"bytes": None, "path": None}]
    rows = rows.set_column(1, "audio", pa.array(audio, AUDIO))
    write_shard(tmp_path / "in" / "a.parquet", table=rows.slice(0, 3))
    write_shard(tmp_path / "in" / "b.parquet", table=rows.slice(3))
    return tmp_path


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


def test_the_table_without_a_readable_shard_has_the_columns_of_results(digits):
    pipeline = a_pipeline(f"{digits}/in", digits / "out")
    columns = tried(pipeline, 20).table.column_names
    for name in ("a", "b"):
        (digits / "in" / f"{name}.parquet").write_bytes(b"PAR1 and no more")
    result = tried(pipeline, 20)
    assert (result.exit_code, result.table.num_rows) == (3, 0)
    assert result.table.column_names == [name for name in columns if name != "id"]
