"""Pickled weights of strangers: each file is refused, runs nothing, takes bounded memory and time."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest

from raysp import CheckpointError, bounds
from raysp.checkpoints.pickles import conversion
from raysp.checkpoints.pickles.files import read_weights
from raysp.checkpoints.pickles.program import NotWeightsError
from raysp.checkpoints.pickles.safetensors import write_weights
from raysp.models import convert_checkpoint
from tests.checkpoints.pickles import hostile, misbehaving

HOSTILE = hostile.files(Path("/nonexistent"))


def checkpoint_of(folder, content, name="pytorch_model.bin"):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    (folder / name).write_bytes(content)
    return folder


def content_of(name, mark):
    content = hostile.files(mark)[name][0] if "command" in name or "code" in name else HOSTILE[name][0]
    return content() if callable(content) else content


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_before_anything_of_it_is_used(tmp_path, name):
    mark, path, message = tmp_path / "ran", tmp_path / "pytorch_model.bin", HOSTILE[name][1]
    path.write_bytes(content_of(name, mark))
    with pytest.raises((NotWeightsError, bounds.TooLargeError), match=message):
        write_weights(path, read_weights(path), tmp_path / "out", are_tied=True, on_bytes=lambda _: None)
    assert not mark.exists()


ENDS = [
    *("a command", "a command in the older format", "code that is evaluated", "an allocation by a storage's class"),
    *("a storage that claims a terabyte", "one element, a trillion times", "half an archive"),
    *("an archive that decompresses to a thousand times its size", "text that claims exabytes", "a number as a name"),
]


@pytest.mark.parametrize("name", ENDS)
def test_the_conversion_of_a_hostile_file_leaves_nothing(tmp_path, name):
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
        (b"memory", "reading it takes more than 536,870,912 bytes of memory"),
        (b"time", "reading it ended a process with signal SIG(KILL|XCPU)"),
        (b"silence", "reading it takes more than 1 s"),
        (b"crash", "reading it ended a process with signal SIGSEGV"),
    ],
)
def test_a_reader_that_takes_memory_or_time_without_end_or_crashes_is_ended(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(conversion, "process", misbehaving)
    if content == b"silence":
        monkeypatch.setattr(conversion, "SILENT_SECONDS", 1)
    children = []
    monkeypatch.setattr(conversion, "_started", lambda request, old=conversion._started: kept(children, old(request)))
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
