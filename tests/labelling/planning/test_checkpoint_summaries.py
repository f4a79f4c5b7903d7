"""The description of a checkpoint is cached while neither its files nor the code of the models change."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raysp import CheckpointError
from raysp.labelling.planning.planned_checkpoint import summary_of
from raysp.models import checking
from tests.corpora import CHECKPOINT

CHECK = checking.check_checkpoint


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


@pytest.fixture
def checked(monkeypatch) -> list[Path]:
    """The folders that were checked."""
    found: list[Path] = []

    def noting(folder, **options):
        found.append(folder)
        return CHECK(folder, **options)

    monkeypatch.setattr(checking, "check_checkpoint", noting)
    return found


def test_a_checkpoint_is_checked_once(checkpoint, checked):
    assert summary_of(checkpoint) == summary_of(checkpoint) == CHECK(checkpoint)
    assert checked == [checkpoint]


def test_a_changed_file_is_checked(checkpoint, checked):
    summary_of(checkpoint)
    config = checkpoint / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "num_hidden_layers": values["num_hidden_layers"] - 1}))
    for _ in range(2):  # what was refused is not cached
        with pytest.raises(CheckpointError):
            summary_of(checkpoint)
    assert len(checked) == 3


def test_a_damaged_cache_is_written_again(checkpoint, checked, tmp_path):
    found = summary_of(checkpoint)
    [file] = (tmp_path / "cache" / "raysp" / "summaries").iterdir()
    whole = file.read_text()
    file.write_text(whole[:-40])
    assert summary_of(checkpoint) == found
    assert (file.read_text(), len(checked)) == (whole, 2)


def test_no_cache_can_be_written(checkpoint, checked, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert summary_of(checkpoint) == summary_of(checkpoint)
    assert len(checked) == 2


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nothing-here"):
        summary_of(tmp_path / "nothing-here")


@pytest.mark.drivers
@pytest.mark.slow
def test_a_second_plan_needs_no_torch(checkpoint, tmp_path, recipe):
    code = (
        "import sys\n"
        "if sys.argv[1] == 'without torch':\n    sys.modules['torch'] = None\n"
        "from raysp.cli import main\n"
        "main(['plan', *sys.argv[2:]])\n"
    )
    said = []
    for torch in ("with torch", "without torch"):
        command = [sys.executable, "-c", code, torch, str(recipe), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
    assert said[0] == said[1]
