"""The new folder of a conversion: it appears when all of it is written, and holds nothing from outside the old one."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from raysp import CheckpointError, StoreError
from raysp.models import convert_checkpoint

KILLED = """
import os, signal, sys
from raysp.models import convert_checkpoint
convert_checkpoint(sys.argv[1], sys.argv[2], on_progress=lambda done, of: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.fixture
def pickled(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    torch.save({"weight": torch.randn(20, 30)}, folder / "pytorch_model.bin")
    return folder


@pytest.mark.slow
def test_a_killed_conversion_leaves_no_checkpoint_and_the_next_removes_its_scratch_folder(pickled, tmp_path):
    out = tmp_path / "new" / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, pickled, out], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(out.parent)
    assert left.startswith(".out.part-")
    convert_checkpoint(pickled, out)
    assert os.listdir(out.parent) == ["out"]


def test_a_folder_with_files_is_not_replaced_even_if_it_is_filled_meanwhile(pickled, tmp_path):
    out = tmp_path / "out"
    out.mkdir()

    def fill(done, of):
        (out / "mine.txt").touch()

    for _ in range(2):
        with pytest.raises(CheckpointError, match="out: is not empty, expected a new folder: give another one"):
            convert_checkpoint(pickled, out, on_progress=fill)
        assert os.listdir(out) == ["mine.txt"]


def test_a_disk_without_space_is_refused_before_anything_is_written(pickled, tmp_path):
    os.truncate(
        pickled / "pytorch_model.bin", 15 << 40
    )  # as much as the largest files of ext4 have, and takes no space
    message = r"new: has [\d,]+ bytes free, and the checkpoint takes 16,492,\d+,\d+,\d+; free space"
    with pytest.raises(StoreError, match=message):
        convert_checkpoint(pickled, tmp_path / "new" / "out")
    assert os.listdir(tmp_path / "new") == []


def test_a_link_out_of_the_folder_is_refused(pickled, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").touch()
    (pickled / "pytorch_model.bin").rename(tmp_path / "weights")
    for name in ("vocab.json", "language_model", "pytorch_model.bin"):
        shutil.copy(tmp_path / "weights", pickled / "pytorch_model.bin")
        (pickled / name).unlink(missing_ok=True)
        (pickled / name).symlink_to(secret if name == "language_model" else secret / "file")
        with pytest.raises(CheckpointError, match=r"a link to '.*secret/file', outside the checkpoint"):
            convert_checkpoint(pickled, tmp_path / "new" / "out")
        (pickled / name).unlink()
    assert not (tmp_path / "new").exists()


def test_the_command_follows_links_within_the_folder_and_leaves_pipes_out(pickled, tmp_path, raysp_command):
    (pickled / "weights").mkdir()
    (pickled / "pytorch_model.bin").rename(pickled / "weights" / "file")
    (pickled / "pytorch_model.bin").symlink_to("weights/file")
    os.mkfifo(pickled / "vocab.json")
    (tmp_path / "out").mkdir()
    done = raysp_command("convert", pickled, tmp_path / "out", "--json")
    found = json.loads(done.out)
    assert (done.code, found["num_tensors"], found["written"]) == (0, 1, ["model.safetensors"])
    assert found["summary"] is None
    assert "vocab.json" in found["left_out"]
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()
    refused = raysp_command("convert", pickled, "s3://bucket/out")
    assert refused.code == 2
    assert "expected a local folder" in refused.err
