"""The description of a checkpoint is cached while neither its files nor the code of the models change."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError
from raysp.models import check_checkpoint
from tests.corpora import CHECKPOINT, a_pipeline, write_shard


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shard(tmp_path / "in" / "a.parquet")
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def described(checkpoint: Path):
    """Return the description of a checkpoint in a plan."""
    folder = checkpoint.parent
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript()])]
    return raysp.plan(a_pipeline(f"{folder}/in", folder / "out", steps=steps)).settings.checkpoint


def cached(checkpoint: Path) -> list[Path]:
    return [*(checkpoint.parent / "cache" / "raysp" / "summaries").iterdir()]


def mark(checkpoint: Path) -> None:
    """Change the number of parameters in the cached description."""
    [file] = cached(checkpoint)
    file.write_text(re.sub(r'"num_parameters":\s*\d+', '"num_parameters":7', file.read_text()))


def test_a_checkpoint_is_checked_once(checkpoint):
    assert described(checkpoint) == check_checkpoint(checkpoint)
    mark(checkpoint)
    assert described(checkpoint).num_parameters == 7


def test_a_changed_file_is_checked(checkpoint):
    described(checkpoint)
    mark(checkpoint)
    config = checkpoint / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "num_hidden_layers": values["num_hidden_layers"] - 1}))
    for _ in range(2):  # what was refused is not cached
        with pytest.raises(CheckpointError):
            described(checkpoint)
    config.write_text(json.dumps(values))
    assert described(checkpoint) == check_checkpoint(checkpoint)
    assert len(cached(checkpoint)) == 2


def test_a_damaged_cache_is_written_again(checkpoint):
    found = described(checkpoint)
    [file] = cached(checkpoint)
    whole = file.read_text()
    file.write_text(whole[:-40])
    assert described(checkpoint) == found
    assert file.read_text() == whole


@pytest.mark.drivers
@pytest.mark.slow
def test_a_second_plan_needs_no_torch_and_no_part_of_trainings_and_finished_sinks(checkpoint, tmp_path, recipe):
    code = (
        "import sys\n"
        "if sys.argv[1] == 'without':\n"
        "    sys.modules |= dict.fromkeys(['torch', 'raysp.training', 'raysp.labelling.finished'])\n"
        "from raysp.cli import main\n"
        "main(['plan', *sys.argv[2:]])\n"
    )
    said = []
    for modules in ("with", "without"):
        command = [sys.executable, "-c", code, modules, str(recipe), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
    assert said[0] == said[1]
