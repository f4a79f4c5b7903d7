"""`raysp retry --shard`: a label shard is made again whole, whatever is killed meanwhile."""

from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, digits_table, write_shard

DIGITS = digits_table()
KEPT, CHANGED = DIGITS.slice(0, 4), DIGITS.slice(8, 6)


@pytest.fixture
def pipeline(tmp_path) -> raysp.Pipeline:
    """A pipeline whose sink is complete, and whose second shard has changed since."""
    for name, table in (("a", KEPT), ("b", DIGITS.slice(4, 4))):
        write_shard(tmp_path / "in" / f"{name}.parquet", table=table, row_group_size=2)
    made = a_pipeline(f"{tmp_path}/in/*.parquet", raysp.Parquet(f"{tmp_path}/out", rows="ok"))
    raysp.run(made, engine="here", progress=False)
    write_shard(tmp_path / "in" / "b.parquet", table=CHANGED, row_group_size=2)
    return made


def ids(sink: Path) -> list[str]:
    return [row["id"] for row in kit.rows(sink)]


def check_whole(pipeline: raysp.Pipeline, sink: Path) -> None:
    """Check that the sink has the labels of the source, and that nothing is left to do or to remove."""
    assert ids(sink) == [*KEPT.column("id").to_pylist(), *CHANGED.column("id").to_pylist()]
    assert raysp.run(pipeline, engine="here", progress=False).rows == 0
    assert raysp.verify(str(sink), pipeline=pipeline, sample=4).differences == ()
    assert raysp.status(str(sink), pipeline=pipeline).ok == 10


@pytest.mark.drivers
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("phase", kit.PHASES)
def test_a_kill_at_any_phase_costs_no_row(pipeline, tmp_path, phase, when):
    sink = tmp_path / "out"
    untouched = (sink / "a.parquet").stat().st_mtime_ns
    line = ["retry", sink, "--trust", "--shard", "b.parquet", "--engine", "here"]
    kit.killed_at(f"{when}_{phase}", 1, line)
    labels = ids(sink)
    assert labels[:4] == KEPT.column("id").to_pylist()
    assert labels[4:] in (DIGITS.slice(4, 4).column("id").to_pylist(), CHANGED.column("id").to_pylist())
    assert kit.run(line).code == 0
    check_whole(pipeline, sink)
    raysp.gc(str(sink))
    assert raysp.gc(str(sink)).orphans == ()
    assert (sink / "a.parquet").stat().st_mtime_ns == untouched


def test_error_rows_of_the_new_content_are_error_rows_and_a_later_retry_finds_them(pipeline, tmp_path):
    rows = CHANGED.to_pylist()
    rows[1]["audio"]["bytes"] = b"no audio"
    write_shard(tmp_path / "in" / "b.parquet", table=pa.Table.from_pylist(rows, CHANGED.schema))
    found = raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], engine="here", progress=False, trust=True)
    assert (found.rows, found.errors) == (6, {"unsupported_format": 1})
    assert raysp.status(f"{tmp_path}/out").errors_by_type == {"unsupported_format": 1}
    again = raysp.retry(f"{tmp_path}/out", pipeline=pipeline, engine="here", progress=False)
    assert (again.rows, again.shards_unchanged) == (1, 1)


def test_a_shard_that_cannot_be_read_keeps_its_labels(pipeline, tmp_path):
    before = (tmp_path / "out" / "b.parquet").read_bytes()
    (tmp_path / "in" / "b.parquet").write_bytes(b"no Parquet")
    found = raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], engine="here", progress=False, trust=True)
    assert (found.exit_code, [*found.shards_failed]) == (3, ["b.parquet"])
    assert (tmp_path / "out" / "b.parquet").read_bytes() == before
    write_shard(tmp_path / "in" / "b.parquet", table=CHANGED, row_group_size=2)
    raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], engine="here", progress=False, trust=True)
    check_whole(pipeline, tmp_path / "out")


def test_too_many_errors_stop_it_and_the_labels_stay(pipeline, tmp_path):
    before = (tmp_path / "out" / "b.parquet").read_bytes()
    rows = [{**row, "audio": {"bytes": b"no audio", "path": None}} for row in DIGITS.slice(0, 30).to_pylist()]
    write_shard(tmp_path / "in" / "b.parquet", table=pa.Table.from_pylist(rows, CHANGED.schema))
    with pytest.raises(raysp.RunError, match="30 of 30 rows failed"):
        raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], engine="here", progress=False, trust=True)
    assert (tmp_path / "out" / "b.parquet").read_bytes() == before
    write_shard(tmp_path / "in" / "b.parquet", table=CHANGED, row_group_size=2)
    raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], engine="here", progress=False, trust=True)
    check_whole(pipeline, tmp_path / "out")
