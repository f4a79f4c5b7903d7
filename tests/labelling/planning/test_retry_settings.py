"""`retry PIPELINE --set`: settings that no labelled row depends on, with which error rows are done again."""

import json

import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.corpora import AUDIO, a_pipeline, wav, write_shard

NAMES = ["a.wav", "b.wav", "c.wav"]


@pytest.fixture
def file(tmp_path):
    """The file of a pipeline whose rows by path are errors, since no folder was given; the second has bytes."""
    (folder := tmp_path / "clips").mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(wav(1600 + 160 * number))
    rows = [{"bytes": wav(1760) if name == "b.wav" else None, "path": name} for name in NAMES]
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": NAMES, "audio": pa.array(rows, AUDIO)}))
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    types = [row["error_type"] for row in kit.rows(tmp_path / "out")]
    assert types == ["path_not_allowed", None, "path_not_allowed"]
    return kit.pipeline_file(tmp_path / "label.py", pipeline)


@pytest.mark.slow
def test_rows_without_a_folder_for_their_paths_are_labelled_once_it_is_set(file, tmp_path):
    before = kit.rows(tmp_path / "out")
    settings = [f"source.audio_root={tmp_path}/clips", "steps.1.pool.actors=3", "max_error_rate=1"]
    ran = kit.run(["retry", file, *(part for one in settings for part in ("--set", one))])
    assert (ran.code, "error rows   2 labelled again, 0 failed again" in ran.out) == (0, True)
    assert f"next         raysp status {file} --set source.audio_root={tmp_path}/clips" in ran.out
    after = kit.rows(tmp_path / "out")
    assert [row["status"] for row in after] == ["ok"] * 3
    assert after[1] == before[1]
    record = json.loads((tmp_path / "out" / ".raysp" / "run.json").read_text())["pipeline"]
    assert (record["steps"][1]["pool"]["actors"], record["max_error_rate"]) == (3, 1)
