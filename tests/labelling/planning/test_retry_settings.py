"""`retry PIPELINE --set`: settings that no labelled row depends on, with which error rows are done again."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import AUDIO, a_pipeline, wav, write_shard
from tests.here import run_without_ray
from tests.kit import pipeline_file

NAMES = ["a.wav", "b.wav", "c.wav"]


@pytest.fixture
def clips(tmp_path):
    """Two recordings by path, and a shard with a third one's bytes beside their paths."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(wav(1600 + 160 * number))
    rows = [{"bytes": None, "path": name} for name in NAMES]
    rows[1]["bytes"] = (folder / NAMES[1]).read_bytes()
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": NAMES, "audio": pa.array(rows, AUDIO)}))
    return folder


def pipeline_of(clips, **fields) -> raysp.Pipeline:
    return a_pipeline(raysp.Shards(f"{clips.parent}/in/*.parquet", **fields), clips.parent / "out")


def rows_of(clips) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(clips.parent / "out" / "a.parquet").to_pylist()}


def recorded(sink: str) -> dict:
    """Return the pipeline that a sink records."""
    return json.loads(Path(sink, ".raysp", "run.json").read_text())["pipeline"]


@pytest.fixture
def labelled(clips) -> str:
    """A sink whose rows by path are errors, since no folder was given for them."""
    raysp.run(pipeline_of(clips), engine="here", progress=False)
    assert [row["error_type"] for row in rows_of(clips).values()] == ["path_not_allowed", None, "path_not_allowed"]
    return str(clips.parent / "out")


@pytest.fixture
def no_ray(monkeypatch):
    """Label in this process, as a try-out does."""
    run_without_ray(monkeypatch)


class TestAudioRoot:
    @pytest.mark.slow
    @pytest.mark.usefixtures("no_ray")
    def test_rows_without_a_folder_for_their_paths_are_labelled_once_it_is_set(self, raysp_command, clips, labelled):
        before, file = rows_of(clips), pipeline_file(clips.parent / "label.py", pipeline_of(clips))
        ran = raysp_command("retry", file, "--set", f"source.audio_root={clips}")
        assert (ran.code, "error rows   2 labelled again, 0 failed again" in ran.out) == (0, True)
        assert f"next         raysp status {file} --set source.audio_root={clips}\n" in ran.out
        after = rows_of(clips)
        assert [row["status"] for row in after.values()] == ["ok"] * 3
        assert after["b.wav"] == before["b.wav"]


class TestOtherSettings:
    def test_pool_and_storage_options_are_set_and_recorded(self, raysp_command, clips, labelled):
        settings = ["steps.1.pool.actors=3", 'sink.storage_options={"auto_mkdir": true}', "max_error_rate=1"]
        file = pipeline_file(clips.parent / "label.py", pipeline_of(clips))
        ran = raysp_command("retry", file, "--engine", "here", *(part for one in settings for part in ("--set", one)))
        record = recorded(labelled)
        assert ran.code == 3, ran.err  # rows by path stay errors
        assert record["steps"][1]["pool"]["actors"] == 3
        assert record["sink"]["storage_options"] == {"auto_mkdir": True}
        assert record["max_error_rate"] == 1
