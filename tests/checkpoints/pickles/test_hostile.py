"""Pickled weights of strangers: each file is refused, runs nothing, takes bounded memory and time."""

import io
import json
import pickle
import re
import subprocess
import sys
import zipfile

import pytest

from raysp import CheckpointError
from raysp.models import convert_checkpoint
from tests.checkpoints.pickles import hostile

CONVERTERS = """
import json, os, sys
from raysp.models.base import pickle_process

for source in sys.argv[1:]:
    out, given = os.pipe()
    os.write(given, json.dumps({"files": [[source, f"{source}.safetensors"]], "are_tied": False}).encode() + b"\\n")
    sys.stdout.flush()
    if not (child := os.fork()):
        os.dup2(out, 0)
        pickle_process.main()
        os._exit(0)
    code = os.waitpid(child, 0)[1]
    os.close(given)
    os.close(out)
    assert code == 0
"""
"""The process that reads pickles, forked for each file: it starts once for all of them."""


def test_each_hostile_file_is_refused_for_its_reason_and_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    cases = hostile.files(mark)
    for number, (content, _) in enumerate(cases.values()):
        (tmp_path / f"{number:02}.bin").write_bytes(content)
    files = sorted(tmp_path.glob("*.bin"))
    started = [sys.executable, "-c", CONVERTERS, *files]
    done = subprocess.run(started, capture_output=True, text=True, check=True, timeout=500)
    found = [json.loads(line)["refused"] for line in done.stdout.splitlines()]
    for (name, (_, reason)), refusal in zip(cases.items(), found, strict=True):
        assert re.search(reason, refusal), name
    assert sorted(tmp_path.iterdir()) == files


def checkpoint_of(folder):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("is_deep", [False, True], ids=["a command", "nested tuples"])
def test_a_hostile_file_is_refused_and_leaves_nothing(tmp_path, is_deep):
    mark, folder = tmp_path / "ran", checkpoint_of(tmp_path / "in")
    command, reason = hostile.files(mark)["a command"]
    content = hostile.deep() if is_deep else command
    (folder / "pytorch_model.bin").write_bytes(content)
    reason = "reading it ended a process with signal SIGSEGV" if is_deep else reason
    message = f"pytorch_model.bin: not plain weights: {reason}; nothing of it was run. Copy the file again"
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(folder, tmp_path / "out" / "checkpoint")
    assert not mark.exists()
    assert [*(tmp_path / "out").iterdir()] == []
    with zipfile.ZipFile(io.BytesIO(command)) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert mark.exists()  # where the pickle is loaded, it runs
