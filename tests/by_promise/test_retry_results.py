"""`raysp retry`: a label shard of which no row changed is not replaced."""

import os

import pyarrow.parquet as pq
import pytest

import raysp
from tests.by_promise.test_run_results import damaged
from tests.corpora import a_pipeline, digits_table, write_shard

DIGITS = digits_table()
pytestmark = pytest.mark.usefixtures("without_ray")


def contents(folder) -> dict[str, tuple[int, int, bytes]]:
    """Return inode, time and bytes of label shards and of the rows that they leave out."""
    files = [*folder.glob("*.parquet"), *(folder / ".raysp" / "errors").rglob("*.arrow")]
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.mark.parametrize("rows", ["all", "ok"])
def test_a_retry_that_changes_no_row_replaces_no_file_and_says_so(tmp_path, raysp_command, rows):
    for name in "ab":
        write_shard(tmp_path / "in" / f"{name}.parquet", table=damaged(DIGITS.slice(0, 3), 1))
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", raysp.Parquet(f"{tmp_path}/out", rows=rows))
    raysp.run(pipeline)
    before = contents(tmp_path / "out")
    ran = raysp_command("retry", tmp_path / "out", "--trust")
    assert (ran.code, contents(tmp_path / "out")) == (3, before)
    assert "0 of 2 label shards replaced, 2 left as before: no row changed" in " ".join(ran.out.split())
    found = raysp.retry(f"{tmp_path}/out", pipeline=pipeline)
    assert (found.shards_unchanged, found.errors) == (2, {"unsupported_format": 2})
    assert contents(tmp_path / "out") == before
    assert raysp.verify(f"{tmp_path}/out", pipeline=pipeline).differences == ()


def test_a_label_shard_with_one_changed_row_is_replaced(tmp_path):
    for row, one in enumerate(DIGITS.column("audio").slice(0, 4).to_pylist()):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{row}.wav").write_bytes(one["bytes"] if row % 2 else b"no audio")
    pipeline = a_pipeline(f"{tmp_path}/in", f"{tmp_path}/out", max_error_rate=1.0)
    raysp.run(pipeline)
    (tmp_path / "in" / "0.wav").write_bytes(DIGITS.column("audio")[0].as_py()["bytes"])
    found = raysp.retry(f"{tmp_path}/out", pipeline=pipeline)
    assert (found.shards_unchanged, found.rows, found.errors) == (0, 2, {"unsupported_format": 1})
    [label_shard] = (tmp_path / "out").glob("*.parquet")
    assert pq.read_table(label_shard).column("status").to_pylist() == ["ok", "ok", "error", "ok"]


def test_another_version_of_a_recording_is_recorded_though_its_row_stays(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"no audio")
    (tmp_path / "in" / "b.wav").write_bytes(DIGITS.column("audio")[0].as_py()["bytes"])
    pipeline = a_pipeline(f"{tmp_path}/in", f"{tmp_path}/out", max_error_rate=1.0)
    raysp.run(pipeline)
    os.utime(tmp_path / "in" / "a.wav", (1, 1))
    assert raysp.retry(f"{tmp_path}/out", pipeline=pipeline).shards_unchanged == 0
    assert raysp.verify(f"{tmp_path}/out", pipeline=pipeline).differences == ()
    assert raysp.retry(f"{tmp_path}/out", pipeline=pipeline).shards_unchanged == 1
