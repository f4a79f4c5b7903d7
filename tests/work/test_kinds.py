"""A new kind of work is a folder and one entry of `raysp.sink.sinks.KINDS`; the verbs act on it unchanged."""

import json
from pathlib import Path

import pytest

import raysp
from raysp import PlanError, work
from raysp.cluster.resources import with_absolute_paths
from raysp.cluster.submitting.submission import entrypoint
from raysp.sink import sinks
from tests.work.counting import COUNT, Counting


def file(folder: Path) -> Path:
    """Write a file that defines such work."""
    path = folder / "counted.py"
    path.write_text(
        "import raysp\nfrom tests.work.counting import Counting\n"
        f"counting = Counting(source=raysp.Shards('s3://b/in/*.parquet'), sink=raysp.Parquet('{folder}/out'))\n"
    )
    return path


@pytest.fixture(autouse=True)
def counting(monkeypatch):
    names = "tests.work.counting:Counting", COUNT, "tests.work.counting"
    monkeypatch.setitem(sinks.KINDS, "counting", sinks.Registered(*names, "the sink of a count", "read its file"))


@pytest.fixture
def sink(tmp_path):
    made = work.load_work(str(file(tmp_path)))
    made.run()
    return tmp_path / "out"


def test_its_plan_and_estimate_are_shown(raysp_command, tmp_path):
    ran = raysp_command("plan", file(tmp_path))
    assert ran.code == 0
    assert "to count" in ran.out
    assert json.loads(raysp_command("plan", file(tmp_path), "--json").out)["estimate"]["facts"] == [["time", "1 s"]]
    assert raysp.estimate(work.load_work(str(file(tmp_path)))).facts == (("time", "1 s"),)


def test_options_that_do_not_apply_are_refused_by_its_noun(raysp_command, tmp_path):
    ran = raysp_command("plan", file(tmp_path), "--sample", 3)
    assert (ran.code, "the counting" in ran.err) == (2, True)


def test_its_sinks_are_found_by_their_record(raysp_command, sink, tmp_path):
    assert raysp.status(str(sink)).files == 1
    assert json.loads(raysp_command("status", sink, "--json").out)["files"] == 1
    assert "files" in raysp_command("status", sink, "--watch").out
    assert "files" in raysp_command("status", file(tmp_path)).out
    assert (sink / ".raysp" / "report.html").samefile(raysp.report(str(sink)))
    assert (sink / ".raysp" / "report.html").read_text() == "<p>1 files</p>"


def test_labels_are_neither_written_to_its_sinks_nor_looked_for_in_them(sink):
    with pytest.raises(PlanError, match="out: the sink of a count; choose another folder for the labels"):
        sinks.Sink.open(str(sink)).refuse_other_kind()
    with pytest.raises(PlanError, match="out: the sink of a count, without label shards; read its file"):
        raysp.verify(str(sink))


def test_gc_asks_it_for_what_is_left_over(sink):
    (sink / ".raysp" / "tmp").mkdir(exist_ok=True)
    (sink / ".raysp" / "tmp" / "old").write_text("x")
    assert [one.path for one in raysp.gc(str(sink), dry_run=True).orphans] == [".raysp/tmp/old"]
    assert raysp.gc(str(sink)).removed
    assert not (sink / ".raysp" / "tmp" / "old").exists()


def test_a_job_of_it_runs_its_own_verb(tmp_path):
    target = str(file(tmp_path))
    assert (
        entrypoint(target, work.load_work(target), ["name=a b"]) == "python -m raysp count counted.py --set 'name=a b'"
    )


def test_its_places_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = with_absolute_paths(Counting(source=raysp.Shards("in/a.parquet"), sink=raysp.Parquet("out")))
    assert made.source.url == str(tmp_path / "in" / "a.parquet")
    assert made.sink.url == str(tmp_path / "out")
