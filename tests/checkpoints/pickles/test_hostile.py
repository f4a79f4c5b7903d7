"""Pickled weights of strangers: each file is refused, runs nothing, takes bounded memory and time."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from raysp import CheckpointError, StoreError
from raysp.models import convert_checkpoint
from raysp.models.base import pickled_weights
from tests.checkpoints.pickles import hostile, misbehaving

HOSTILE = hostile.files(Path("/nonexistent"))
QUICK = ("a command", "a command in the older format", "one element, a trillion times", "half an archive")


def checkpoint_of(folder, content, name="pytorch_model.bin"):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    (folder / name).write_bytes(content)
    return folder


def content_of(name, mark):
    content = hostile.files(mark)[name][0]
    return content() if callable(content) else content


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in HOSTILE]
)
def test_a_hostile_file_is_refused_and_leaves_nothing(tmp_path, name):
    mark = tmp_path / "ran"
    folder = checkpoint_of(tmp_path / "in", content_of(name, mark))
    message = f"pytorch_model.bin: not plain weights: .*{HOSTILE[name][1]}.* nothing of it was run. Copy the file again"
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(folder, tmp_path / "out" / "checkpoint")
    assert not mark.exists()
    assert [*(tmp_path / "out").iterdir()] == []


def test_the_payloads_run_where_pickles_are_loaded(tmp_path):
    mark = tmp_path / "ran"
    with zipfile.ZipFile(io.BytesIO(content_of("a command", mark))) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"memory", "reading it takes more than 536,870,912 bytes of memory beyond the size of the file"),
        (b"time", "reading it ended a process with signal SIG(KILL|XCPU)"),
        (b"silence", "reading it takes more than 5 s"),
        (b"crash", "reading it ended a process with signal SIGSEGV"),
    ],
)
def test_a_reader_that_takes_memory_or_time_without_end_or_crashes_is_ended(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(pickled_weights, "PROCESS", misbehaving.__name__)
    if content == b"silence":
        monkeypatch.setattr(pickled_weights, "SILENT_SECONDS", 5)
    children = []
    started = pickled_weights._started
    monkeypatch.setattr(pickled_weights, "_started", lambda request: kept(children, started(request)))
    folder = checkpoint_of(tmp_path / "in", content)
    with pytest.raises(
        CheckpointError, match=f"pytorch_model.bin: not plain weights: {message}; nothing of it was run"
    ):
        convert_checkpoint(folder, tmp_path / "out" / "checkpoint")
    assert [*(tmp_path / "out").iterdir()] == []
    assert [child.poll() is not None for child in children] == [True]


def kept(children, child):
    children.append(child)
    return child


def test_a_pipe_and_a_link_to_itself_are_refused_at_once(tmp_path):
    pipe, link = tmp_path / "pipe.bin", tmp_path / "link.bin"
    os.mkfifo(pipe)
    link.symlink_to(link)
    for file, kind, message in ((pipe, CheckpointError, "no regular file"), (link, StoreError, "cannot be read")):
        with pytest.raises(kind, match=f"{file}: .*{message}"):
            pickled_weights.convert_files([(file, tmp_path / "new.safetensors")])
