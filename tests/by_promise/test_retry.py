"""`raysp retry`: error rows and named shards are labelled again, whatever is killed, and no other row changes."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import raysp
from raysp import PlanError
from tests import kit
from tests.corpora import a_pipeline, digits_table, write_shard
from tests.soaked import soaked

DIGITS = digits_table()
KEPT, CHANGED = DIGITS.slice(0, 4), DIGITS.slice(8, 6)
HERE = {"engine": "here", "progress": False}


@pytest.fixture
def pipeline(tmp_path) -> raysp.Pipeline:
    """A pipeline whose sink is complete, and whose second shard has changed since."""
    for name, table in (("a", KEPT), ("b", DIGITS.slice(4, 4))):
        write_shard(tmp_path / "in" / f"{name}.parquet", table=table, row_group_size=2)
    made = a_pipeline(f"{tmp_path}/in/*.parquet", raysp.Parquet(f"{tmp_path}/out", rows="ok"))
    raysp.run(made, **HERE)
    write_shard(tmp_path / "in" / "b.parquet", table=CHANGED, row_group_size=2)
    return made


def ids(sink: Path) -> list[str]:
    return [row["id"] for row in kit.rows(sink)]


def check_whole(pipeline: raysp.Pipeline, sink: Path) -> None:
    """Check that the sink has the labels of the source, and that nothing is left to do or to remove."""
    assert ids(sink) == [*KEPT.column("id").to_pylist(), *CHANGED.column("id").to_pylist()]
    assert raysp.run(pipeline, **HERE).rows == 0
    assert raysp.verify(str(sink), pipeline=pipeline, sample=4).differences == ()
    assert raysp.status(str(sink), pipeline=pipeline).ok == 10


class TestShards:
    def test_only_the_shard_whose_content_changed_is_labelled_again(self, pipeline, tmp_path):
        sink = tmp_path / "out"
        before = {file.name: file.stat().st_mtime_ns for file in sink.glob("*.parquet")}
        message = r"b\.parquet: its content changed since it was planned.*--shard b\.parquet`"
        with pytest.raises(PlanError, match=message):
            raysp.run(pipeline, **HERE)
        ran = kit.run(["retry", sink, "--trust", "--shard", "b.parquet", "--engine", "here"])
        assert (ran.code, "6 labelled again, 0 failed; 1 of 1 label shard replaced" in ran.out) == (0, True), ran.err
        after = {file.name: file.stat().st_mtime_ns for file in sink.glob("*.parquet")}
        assert {name for name in before if before[name] != after[name]} == {"b.parquet"}
        check_whole(pipeline, sink)

    @pytest.mark.drivers
    @pytest.mark.parametrize("when", ["before", *soaked(["after"])])
    @pytest.mark.parametrize("phase", kit.PHASES)
    def test_a_kill_at_any_phase_costs_no_row(self, pipeline, tmp_path, phase, when):
        sink = tmp_path / "out"
        line = ["retry", sink, "--trust", "--shard", "b.parquet", "--engine", "here"]
        kit.killed_at(f"{when}_{phase}", 1, line)
        labels = ids(sink)
        assert labels[:4] == KEPT.column("id").to_pylist()
        assert labels[4:] in (DIGITS.slice(4, 4).column("id").to_pylist(), CHANGED.column("id").to_pylist())
        assert kit.run(line).code == 0
        check_whole(pipeline, sink)
        raysp.gc(str(sink))
        assert raysp.gc(str(sink)).orphans == ()

    def test_shards_are_named_by_patterns_and_those_that_are_not_there_are_refused(self, pipeline, tmp_path):
        def retried(*names: str) -> Any:
            return raysp.retry(f"{tmp_path}/out", shards=[*names], trust=True, **HERE)

        found = retried("[ab].parquet")
        assert (found.rows, found.shards_committed) == (10, 2)
        with pytest.raises(PlanError, match=r"no shard is named '9\.parquet'; expected names such as a\.parquet, "):
            retried("9.parquet")
        (tmp_path / "in" / "b.parquet").unlink()
        with pytest.raises(PlanError, match=r"b\.parquet is no longer in the source; its labels are kept"):
            retried("b.parquet")
        assert raysp.status(f"{tmp_path}/out").ok == 10

    def test_a_shard_that_cannot_be_read_or_mostly_fails_keeps_its_labels(self, pipeline, tmp_path):
        before = (tmp_path / "out" / "b.parquet").read_bytes()
        (tmp_path / "in" / "b.parquet").write_bytes(b"no Parquet")
        found = raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], trust=True, **HERE)
        assert (found.exit_code, [*found.shards_failed]) == (3, ["b.parquet"])
        rows = [{**row, "audio": {"bytes": b"no audio", "path": None}} for row in DIGITS.slice(0, 30).to_pylist()]
        write_shard(tmp_path / "in" / "b.parquet", table=pa.Table.from_pylist(rows, CHANGED.schema))
        with pytest.raises(raysp.RunError, match="30 of 30 rows failed"):
            raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], trust=True, **HERE)
        assert (tmp_path / "out" / "b.parquet").read_bytes() == before
        write_shard(tmp_path / "in" / "b.parquet", table=CHANGED, row_group_size=2)
        raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], trust=True, **HERE)
        check_whole(pipeline, tmp_path / "out")


def contents(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return inode, time and bytes of label shards and of the rows that they leave out."""
    files = [*folder.glob("*.parquet"), *(folder / ".raysp" / "errors").rglob("*.arrow")]
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.mark.parametrize("rows", ["all", "ok"])
def test_error_rows_are_labelled_again_the_others_stay_and_unchanged_shards_are_not_replaced(tmp_path, rows):
    corpus = kit.corpus(tmp_path / "in", rows=6, faults={1: "not_audio", 4: "not_audio"}, kind="manifest")
    pipeline, sink = corpus.pipeline(raysp.Parquet(f"{tmp_path}/out", rows=rows)), tmp_path / "out"
    raysp.run(pipeline, **HERE)
    before, files = kit.rows(sink), contents(sink)
    line = ["retry", sink, "--trust", "--engine", "here"]
    ran = kit.run(line)
    assert "0 of 1 label shard replaced, 1 left as before: no row changed" in " ".join(ran.out.split()), ran.out
    assert (ran.code, contents(sink)) == (3, files)
    [lines] = (tmp_path / "in").glob("*.jsonl")
    mended = json.loads(lines.read_text().splitlines()[1])["audio_filepath"]
    (lines.parent / mended).write_bytes(DIGITS.column("audio")[0].as_py()["bytes"])
    ran = kit.run(line)
    assert "2 labelled again, 1 failed again; 1 of 1 label shard replaced" in " ".join(ran.out.split()), ran.out
    after = kit.rows(sink)
    assert {row["id"]: row for row in before if row["status"] == "ok"}.items() <= {
        row["id"]: row for row in after
    }.items()
    assert sum(row["status"] == "ok" for row in after) == 7
    raysp.gc(str(sink))
    assert raysp.verify(str(sink), sample=8, trust=True).differences == ()


def test_another_version_of_a_recording_is_recorded_though_its_row_stays(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"no audio")
    (tmp_path / "in" / "b.wav").write_bytes(DIGITS.column("audio")[0].as_py()["bytes"])
    pipeline = a_pipeline(f"{tmp_path}/in", f"{tmp_path}/out", max_error_rate=1.0)
    raysp.run(pipeline, **HERE)
    os.utime(tmp_path / "in" / "a.wav", (1, 1))
    assert raysp.retry(f"{tmp_path}/out", pipeline=pipeline, **HERE).shards_unchanged == 0
    assert raysp.verify(f"{tmp_path}/out", pipeline=pipeline).differences == ()
    assert raysp.retry(f"{tmp_path}/out", pipeline=pipeline, **HERE).shards_unchanged == 1


def test_a_pipeline_is_read_from_its_sink_after_the_sink_moved(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=KEPT)
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", raysp.Parquet(f"{tmp_path}/out", keep=["speaker_id"])), **HERE)
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    verified = raysp.verify(str(moved), sample=4, trust=True)
    assert (verified.differences, verified.sampled) == ((), 4)
    found = raysp.retry(str(moved), trust=True, **HERE)
    assert (found.sink, found.rows, found.exit_code) == (str(moved), 0, 0)
