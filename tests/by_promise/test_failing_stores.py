"""Stores that fail while a run works: its exit code, and the same command again."""

import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.corpora import write_shard
from tests.soaked import soaked

LONG = "3600"
"""Seconds between beats: a run that took the lease for that of an active run would wait for six times as long."""


@pytest.fixture
def labelled(tmp_path):
    """The command that writes three rows of texts to `memory://labels`, its rows, and the number of its changes."""
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": [*"abc"], "text": ["one", "two", None]}))
    sink = raysp.Parquet("memory://labels", keep=["text"], rows="ok")
    steps = [raysp.Keep(where=[("text", "!=", "two")])]
    pipeline = raysp.Pipeline(raysp.Shards(f"{tmp_path}/in"), steps=steps, sink=sink)
    line = ["run", kit.pipeline_file(tmp_path / "label.py", pipeline), "--engine", "here"]
    with kit.failing_files() as files:
        assert kit.run(line).code == 0
        assert files.changes > 8
        return line, kit.rows(files.url("labels")), files.changes


@pytest.mark.parametrize("how", ["death", "lost", *soaked(["error"])])
def test_a_run_whose_store_fails_at_any_change_is_completed_by_the_same_command_without_a_wait(
    labelled, monkeypatch, how
):
    line, expected, changes = labelled
    if how == "lost":
        monkeypatch.setenv("RAYSP_BEAT_SECONDS", LONG)
    for n in range(1, changes + 1):
        with kit.failing_files() as files:
            files.fail_at(n, how)
            first = kit.run(line)
            assert (first.code == kit.DEAD) == (how == "death"), first.err
            files.revive()
            again = kit.run(line)
            assert (again.code, kit.rows(files.url("labels"))) == (0, expected), (n, first.err, again.err)


def test_a_store_that_is_full_in_the_middle_fails_the_run_and_refuses_one_that_has_not_begun(labelled):
    line, expected, changes = labelled
    codes = []
    for n in range(1, changes + 1):
        with kit.failing_files() as files:
            files.fail_at(n, "full")
            ran = kit.run(line)
            assert ran.code == 0 or "[Errno 28]" in ran.err, ran.err
            codes.append(ran.code)
            files.revive()
            assert (kit.run(line).code, kit.rows(files.url("labels"))) == (0, expected), n
    started = codes.index(1)
    assert {*codes[:started]} == {2}
    assert {*codes[started:]} <= {0, 1, 3}


def test_a_web_server_is_no_place_for_labels(tmp_path):
    file = kit.corpus(tmp_path / "in", rows=1).file(tmp_path / "label.py", "http://127.0.0.1:9/labels")
    ran = kit.run(["run", file])
    assert (ran.code, "http:// can only be read; write to s3://" in ran.err) == (2, True), ran.err
