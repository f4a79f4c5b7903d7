"""What a user reads of a training: its plan, a try-out, and the files of its sink."""

import functools
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from raysp import Finetune, finetune
from tests import kit


class Planned:
    """Plan of a recipe, as `raysp plan` prints it: `plan[name]` of the object of `--json`, and the printed lines."""

    def __init__(self, recipe: Finetune) -> None:
        self._recipe = recipe
        self._json = json.loads(self._ran("--json"))

    def __getitem__(self, name: str) -> Any:
        return self._json[name]

    @functools.cached_property
    def facts(self) -> dict[str, str]:
        """The printed lines by their names, of the plan as it is now."""
        lines = (re.split(r"\s{2,}", line, maxsplit=1) for line in self._ran().splitlines())
        return {line[0]: line[1] for line in lines if len(line) == 2}

    def _ran(self, *options: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            file = kit.pipeline_file(Path(folder) / "planned_recipe.py", self._recipe)
            ran = kit.run(["plan", file, *options])
        assert ran.code == 0, ran.err
        return ran.out


def planned(recipe: Finetune) -> Planned:
    """Return the plan of a recipe; it must not be refused."""
    return Planned(recipe)


class StopError(Exception):
    """End of a training before its first step."""


def indexed(
    recipe: Finetune, on_indexed: Callable[[int, int], object] = lambda done, of: None, **options: Any
) -> list[tuple[int, int]]:
    """Begin a training, or go on with it, up to its first step: index and record are in the sink then.

    Returns the calls of `on_indexed`, one before each shard that is indexed, and one after the last.
    """
    calls: list[tuple[int, int]] = []

    def stop(_: object) -> None:
        raise StopError

    def add(done: int, of: int) -> None:
        calls.append((done, of))
        on_indexed(done, of)

    with pytest.raises(StopError):
        finetune(recipe, on_plan=stop, on_indexed=add, **{"engine": "here", **options})
    return calls


def steps_of(sink: Path) -> list[dict[str, Any]]:
    """Return the records of the steps in order; of a step that several runs made, that of the last run."""
    found: dict[int, dict[str, Any]] = {}
    for file in sorted((sink / ".raysp" / "log").glob("*-*[0-9].jsonl")):
        found |= {step["done"]: step for step in map(json.loads, file.read_text().splitlines())}
    return [found[done] for done in sorted(found)]


def evaluations_of(sink: Path) -> dict[int, dict[str, Any]]:
    """Return the evaluations by the updates before them, in order; of several of a step, that of the last run."""
    steps = steps_of(sink)
    before = {step["done"] - 1: step["before"] for step in steps if "before" in step}
    return before | {step["done"]: step["evaluation"] for step in steps if "evaluation" in step}


def commits_of(sink: Path) -> dict[int, dict[str, Any]]:
    """Return the markers of the committed steps by the updates before them, in order."""
    files = (sink / ".raysp" / "steps").glob("*.json")
    return {int(file.stem): json.loads(file.read_text()) for file in sorted(files, key=lambda file: int(file.stem))}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether all weights are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def published(sink: Path) -> dict[str, bytes]:
    """Return the files of a checkpoint, with a word for the place of the sink."""
    files = (file for file in sink.iterdir() if file.is_file())
    return {file.name: file.read_bytes().replace(str(sink).encode(), b"SINK") for file in files}


def committed_file(sink: Path, done: int, name: str) -> Path:
    """Return the path of a file of a committed step."""
    return sink / commits_of(sink)[done]["files"][name]["path"]


def error_rows_of(sink: Path) -> list[dict[str, Any]]:
    """Return the error rows of all runs, each once and in order."""
    files = sorted((sink / ".raysp" / "log").glob("*.jsonl"))
    records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = {json.dumps(row): row for record in records for row in record.get("errors", ())}
    return sorted(rows.values(), key=lambda row: (row["shard"], row["row"]))


def record_of(sink: Path) -> dict[str, Any]:
    """Return the record of a training: its recipe, parts and fingerprint."""
    return json.loads((sink / ".raysp" / "recipe.json").read_text())


def recorded(sink: Path, path: str) -> Any:
    """Return a value of the recorded recipe by its dotted path."""
    return functools.reduce(lambda value, name: value[name], path.split("."), record_of(sink)["recipe"])


def stopping_after(number: int) -> Callable[[], bool]:
    """Return a request to stop after this many steps, for `raysp.finetune`."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= number
