"""Shards that cannot be read stay in the record of a sink until they are planned, and every verb counts them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import raysp
from tests.corpora import a_pipeline, wav, write_shard
from tests.here import run_without_ray
from tests.kit import planned_shards

pytestmark = pytest.mark.lengthy

JUNK = b"PAR1 junk PAR1"


def half_readable(folder: Path, sink: str = "out") -> raysp.Pipeline:
    """Label a corpus of a good and a damaged shard."""
    if not (folder / "in").exists():
        write_shard(folder / "in" / "good.parquet", 2)
        (folder / "in" / "bad.parquet").write_bytes(JUNK)
    pipeline = a_pipeline(str(folder / "in"), folder / sink)
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline


def test_status_verify_and_export_count_a_shard_that_could_not_be_read(tmp_path):
    pipeline = half_readable(tmp_path)
    status = raysp.status(str(tmp_path / "out"))
    assert (status.shards, status.shards_committed, status.is_complete) == (2, 1, False)
    assert "bad.parquet" in status.failed["bad.parquet"]
    assert status.unreadable == {"bad.parquet": status.failed["bad.parquet"]}
    verified = raysp.verify(str(tmp_path / "out"), pipeline=pipeline)
    assert (verified.shards, verified.exit_code) == (2, 1)
    assert [one.partition(":")[0] for one in verified.differences] == ["bad.parquet"]
    found = raysp.export(str(tmp_path / "out"), to="jsonl", dest=str(tmp_path / "rows"))
    assert (found.unfinished, found.exit_code) == (("bad.parquet",), 3)
    assert "bad.parquet" in Path(raysp.report(str(tmp_path / "out"))).read_text()


def test_run_and_retry_exit_with_3_until_the_shard_can_be_read(tmp_path, monkeypatch):
    pipeline = half_readable(tmp_path)
    run_without_ray(monkeypatch)
    for result in (raysp.run(pipeline, progress=False), raysp.retry(str(tmp_path / "out"), pipeline=pipeline)):
        assert result.exit_code == 3
        assert [*result.shards_failed] == ["bad.parquet"]
    assert raysp.status(str(tmp_path / "out")).unreadable
    write_shard(tmp_path / "in" / "bad.parquet", 1)
    assert raysp.run(pipeline, progress=False).exit_code == 0
    status = raysp.status(str(tmp_path / "out"))
    assert (status.shards, status.is_complete, status.failed) == (2, True, {})
    assert not raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences


def test_a_committed_shard_that_is_damaged_later_is_counted_again(tmp_path):
    pipeline = half_readable(tmp_path)
    (tmp_path / "in" / "good.parquet").write_bytes(JUNK)
    assert [*raysp.plan(pipeline).corpus.unreadable] == ["bad.parquet", "good.parquet"]
    with pytest.raises(raysp.RunError, match=r"no shard was committed: bad\.parquet"):
        raysp.run(pipeline, engine="here", progress=False)
    status = raysp.status(str(tmp_path / "out"))
    assert (status.shards, status.is_complete) == (2, False)
    assert len(status.failed) == 2


def damaged_tar(folder: Path) -> None:
    (folder / "in" / "bad.tar").write_bytes(b"\1" * 1024)


def damaged_arrow(folder: Path) -> None:
    (folder / "in" / "bad.arrow").write_bytes(b"ARROW1\0\0junkARROW1")


def unreadable(folder: Path) -> None:
    (folder / "in" / "bad.parquet").symlink_to("/proc/self/mem")


@pytest.mark.parametrize("damage", [damaged_tar, damaged_arrow, unreadable], ids=["tar", "arrow", "no permission"])
def test_shards_of_every_kind_are_recorded(tmp_path, damage: Callable[[Path], None]):
    write_shard(tmp_path / "in" / "good.parquet", 1)
    damage(tmp_path)
    raysp.run(a_pipeline(str(tmp_path / "in"), tmp_path / "out"), engine="here", progress=False)
    assert [*raysp.status(str(tmp_path / "out")).unreadable] == ["bad.parquet"]


class TestManifests:
    """Slices of a manifest with lines that are not JSON objects."""

    def write(self, folder: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> raysp.Pipeline:
        monkeypatch.setattr("raysp.corpus.manifests.LINES_A_SHARD", 2)
        (folder / "a.wav").write_bytes(wav())
        (folder / "m.jsonl").write_text("\n".join(lines) + "\n")
        return a_pipeline(str(folder / "m.jsonl"), folder / "out")

    def test_a_slice_keeps_its_name_and_lines_while_an_earlier_one_is_wrong(self, tmp_path, monkeypatch):
        good = json.dumps({"audio_filepath": "a.wav"})
        pipeline = self.write(tmp_path, monkeypatch, [good, "nonsense", good, good, "[]", "7"])
        for _ in range(2):
            raysp.run(pipeline, engine="here", progress=False)
            status = raysp.status(str(tmp_path / "out"))
            assert [*status.unreadable] == ["m-00000.parquet", "m-00002.parquet"]
            assert (status.shards, status.shards_committed, status.rows) == (3, 1, 2)
        assert "line 1" in status.unreadable["m-00002.parquet"]
        assert "and 1 more line (2)" in status.unreadable["m-00002.parquet"]
        middle = len(good) + len("nonsense") + 2
        [planned] = planned_shards(tmp_path / "out")
        assert (planned["name"], planned["part"]) == ("m-00001.parquet", f"{middle}-{middle + 2 * (len(good) + 1)}")
