"""Steps behind the last `Label`: until a shard is committed they may change, and no row goes through a model again."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ChangedError
from tests.corpora import CHECKPOINT, damaged, digits_table, write_shard
from tests.kit import interrupted, label_shards, pipeline_file, rows, run

MODULE = "rules_of_steps_behind"
BROKEN = "def wanted(rows):\n    return [text != number for text in rows.column('pred_text').to_pylist()]\n"
MENDED = """
def wanted(rows):
    texts, numbers = rows.column("pred_text").to_pylist(), rows.column("number").to_pylist()
    return [text != "FOUR" and number != 1 for text, number in zip(texts, numbers, strict=True)]
"""


@pytest.fixture(autouse=True)
def shards(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, first in (("a", 0), ("b", 6)):
        table = digits_table(6, first).append_column("number", [[*range(first, first + 6)]])
        write_shard(tmp_path / "in" / f"{name}.parquet", table=table)


def made(tmp_path: Path, *behind: raysp.Keep, out: str = "out") -> raysp.Pipeline:
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])
    sink = raysp.Parquet(str(tmp_path / out))
    return raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=[raysp.Decode(), label, *behind], sink=sink)


def written(tmp_path: Path, code: str, *behind: raysp.Keep, out: str = "out") -> Path:
    """Write the module of the functions and a pipeline file that uses it."""
    (tmp_path / f"{MODULE}.py").write_text(code)
    sys.modules.pop(MODULE, None)
    return pipeline_file(tmp_path / "label.py", made(tmp_path, *behind, out=out))


def by_function() -> raysp.Keep:
    return raysp.Keep(where=f"{MODULE}:wanted")


def labelled(ran) -> int:
    assert ran.code == 0, ran.err
    return int(json.loads(ran.out)["rows"])


def test_a_function_that_failed_is_mended_and_no_row_is_labelled_again(tmp_path):
    file = written(tmp_path, BROKEN, by_function())
    failed = run(["run", file])
    assert failed.code != 0
    assert f"{MODULE}.py:2" in failed.err
    written(tmp_path, MENDED, by_function())
    assert labelled(run(["run", file, "--json"])) == 0
    alone = written(tmp_path, MENDED, by_function(), out="alone")
    assert labelled(run(["run", alone, "--json"])) == 12
    assert rows(tmp_path / "out") == rows(tmp_path / "alone")
    left_out = [row["error_message"] for row in rows(tmp_path / "out") if row["status"] == "skipped"]
    assert left_out
    assert {*left_out} == {f"does not meet where={MODULE}:wanted"}


def test_a_bound_changes_while_nothing_is_committed(tmp_path):
    before = raysp.Keep(where=[("pred_score", ">", -1.0)])
    after = raysp.Keep(where=[("pred_text", "!=", "FOUR")])
    file = pipeline_file(tmp_path / "label.py", made(tmp_path, before))
    write_shard(tmp_path / "in" / "a.parquet", table=damaged(pq.read_table(tmp_path / "in" / "a.parquet"), 3))
    interrupted(made(tmp_path, before))  # a shard with an error row waits for the end
    assert not label_shards(tmp_path / "out")
    assert run(["gc", tmp_path / "out"]).code == 0
    pipeline_file(file, made(tmp_path, after))
    ran = run(["run", file, "--json"])
    assert labelled(ran) <= 6  # the second shard was not staged
    left_out = [row for row in rows(tmp_path / "out") if row["status"] == "skipped"]
    assert json.loads(ran.out)["skipped"] == {"filtered": len(left_out)}
    raysp.run(made(tmp_path, after, out="alone"), engine="here", progress=False)
    assert rows(tmp_path / "out") == rows(tmp_path / "alone")
    verified = run(["verify", file, "--sample", "3"])
    assert verified.code == 0, verified.err


def test_steps_behind_are_refused_once_a_shard_is_committed(tmp_path):
    pipeline = made(tmp_path, raysp.Keep(where=[("pred_score", ">", -1.0)]))
    interrupted(pipeline)
    assert len(label_shards(tmp_path / "out")) == 1
    before = rows(tmp_path / "out")
    with pytest.raises(ChangedError, match=r"`steps.2.where.0` was"):
        raysp.run(made(tmp_path, raysp.Keep(where=[("pred_score", ">", -2.0)])), engine="here", progress=False)
    assert rows(tmp_path / "out") == before
