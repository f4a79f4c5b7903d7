"""Pickled weights of strangers: each file is refused, runs nothing, takes bounded memory and time."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from raysp import CheckpointError
from raysp.models import convert_checkpoint
from tests.checkpoints.pickles import hostile

HOSTILE = hostile.files(Path("/nonexistent"))
QUICK = ("a command", "one element, a trillion times", "half an archive")


def checkpoint_of(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    return folder


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HOSTILE]
)
def test_a_hostile_file_is_refused_and_leaves_nothing(tmp_path, name):
    mark, folder = tmp_path / "ran", checkpoint_of(tmp_path / "in")
    content, reason = hostile.files(mark)[name]
    (folder / "pytorch_model.bin").write_bytes(content() if callable(content) else content)
    message = f"pytorch_model.bin: not plain weights: .*{reason}.* nothing of it was run. Copy the file again"
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(folder, tmp_path / "out" / "checkpoint")
    assert not mark.exists()
    assert [*(tmp_path / "out").iterdir()] == []


def test_the_payloads_run_where_pickles_are_loaded(tmp_path):
    mark = tmp_path / "ran"
    with zipfile.ZipFile(io.BytesIO(hostile.files(mark)["a command"][0])) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert mark.exists()


@pytest.mark.parametrize("kind", ["a pipe", "a link to itself"])
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    folder = checkpoint_of(tmp_path / "in")
    place = folder / "pytorch_model.bin"
    os.mkfifo(place) if kind == "a pipe" else place.symlink_to(place)
    with pytest.raises((CheckpointError, OSError)):
        convert_checkpoint(folder, tmp_path / "out" / "checkpoint")
