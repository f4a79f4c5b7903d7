"""The description of a checkpoint is cached while neither its files nor the code of the models change."""

import json
import re
import shutil
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError
from raysp.models import check_checkpoint
from tests.corpora import CHECKPOINT, a_pipeline, write_shard


def test_a_checkpoint_is_checked_once_and_again_where_it_or_the_cache_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shard(tmp_path / "in" / "a.parquet")
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    steps = [raysp.Decode(), raysp.Label(str(folder), outputs=[raysp.Transcript()])]
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=steps)

    def described():
        return raysp.plan(pipeline).settings.checkpoint

    found = described()
    assert found == check_checkpoint(folder)
    [file] = (tmp_path / "cache" / "raysp" / "summaries").iterdir()
    whole = file.read_text()
    file.write_text(whole[:-40])
    assert described() == found
    assert file.read_text() == whole
    file.write_text(re.sub(r'"num_parameters":\s*\d+', '"num_parameters":7', whole))
    assert described().num_parameters == 7
    config = folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "num_hidden_layers": values["num_hidden_layers"] - 1}))
    for _ in range(2):  # what was refused is not cached
        with pytest.raises(CheckpointError):
            described()
    config.write_text(json.dumps(values))
    assert described() == check_checkpoint(folder)
