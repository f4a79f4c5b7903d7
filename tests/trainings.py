"""Sinks of trainings, written file by file without training, for tests of what reads them."""

import json
import math
import os
import random
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import partial
from hashlib import sha256
from typing import Any

import fsspec

import raysp

RECIPE: dict[str, Any] = {
    "type": "Finetune",
    "source": {"type": "Shards", "url": "/in/*.parquet", "text": "text", "storage_options": {}},
    "steps": [{"type": "Decode"}, {"type": "Keep", "min_seconds": 0.3, "max_seconds": 20}],
    "objective": {"type": "CTC", "checkpoint": "owner/encoder", "vocabulary": "build", "text": {"type": "Text"}},
    "schedule": {"type": "Schedule", "epochs": 4, "steps": None, "learning_rate": 3e-4},
    "batching": {"type": "Batching", "seconds": 320, "micro_batches": 8},
    "sink": {"type": "Checkpoint", "url": "/out", "storage_options": {}},
    "seed": 0,
    "name": "words",
}


def log_path(run_id: str, first: int, last: int) -> str:
    """Return the path of the records of some steps of a run."""
    return f".raysp/log/{run_id}-{first:09}-{last:09}.jsonl"


def _has_step(done: int, records: list[dict[str, Any]]) -> bool:
    return records[0]["done"] <= done <= records[-1]["done"]


class Files:
    """The files of a sink.

    Args:
        sink: path or url.
        options: storage options, as in a recipe.
    """

    def __init__(self, sink: object, options: Mapping[str, object] | None = None) -> None:
        values = {
            name: os.environ[value.name] if isinstance(value, raysp.Env) else value
            for name, value in (options or {}).items()
        }
        self.url = str(sink)
        self.system, self.root = fsspec.core.url_to_fs(self.url, **values)

    def paths(self, under: str = "") -> list[str]:
        """Return the paths below a folder, in order."""
        self.system.invalidate_cache()
        return [path.removeprefix(f"{self.root}/") for path in sorted(self.system.find(f"{self.root}/{under}"))]

    def read(self, path: str) -> bytes:
        return self.system.cat_file(f"{self.root}/{path}")

    def write(self, path: str, data: bytes | Mapping[str, object]) -> None:
        """Write bytes, or an object as JSON."""
        self.system.makedirs(f"{self.root}/{path}".rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(f"{self.root}/{path}", data if isinstance(data, bytes) else json.dumps(data).encode())

    def remove(self, path: str) -> None:
        self.system.rm_file(f"{self.root}/{path}")

    def versions(self) -> dict[str, str]:
        """Return the versions of all files but those of the lease."""
        kept = [path for path in self.paths() if not path.startswith((".raysp/lease", ".raysp/tmp"))]
        return {path: str(self.system.info(f"{self.root}/{path}")) for path in kept}


def commit(files: Files, done: int, *, num_workers: int = 1, **metrics: float) -> None:
    """Write a committed step of another training, whose epochs have ten steps, with some metrics."""
    epoch, step = divmod(done, 10)
    path = f".raysp/steps/{done}.ab/model"
    files.write(path, b"weights")
    marker = {
        "position": {"done": done, "epoch": epoch, "step": step},
        "files": {"model": {"path": path, "num_bytes": 7, "sha256": sha256(b"weights").hexdigest()}},
        **{"fingerprint": "f00d", "index": "i", "num_workers": num_workers, "metrics": metrics},
    }
    files.write(f".raysp/steps/{done}.json", marker)


class Sink:
    """The sink of a training of epochs of ten steps.

    Args:
        sink: path or url.
        options: storage options, as in a recipe.
        record: fields that replace those of the record, such as its parts.
        resolved: device and type of the run.
        recipe: fields that replace those of `RECIPE`.
    """

    def __init__(
        self,
        sink: object,
        options: Mapping[str, object] | None = None,
        *,
        record: Mapping[str, object] | None = None,
        resolved: Mapping[str, object] | None = None,
        **recipe: object,
    ) -> None:
        self.files = Files(sink, options)
        self.url = self.files.url
        self.recipe = {**RECIPE, **recipe}
        self._lease: dict[str, Any] = {}
        self.epochs = self.recipe["schedule"]["epochs"] or 4
        self.resolved = dict(resolved or {})
        created = {"created": "2026-01-01T00:00:00+00:00", "fingerprint": "f00d", "parts": {"seed": 0}}
        self._record = {**created, "recipe": self.recipe, "runs": [], **(record or {})}
        self.run = self.begin()

    def begin(self, run_id: str = "20260101T000000000000Z-0a1b2c") -> dict[str, Any]:
        """Begin a run, and return its entry."""
        run = {
            "run_id": run_id,
            "started": f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}T00:00:00+00:00",
            "versions": {"python": "3.11.7", "raysp": "0.1.0", "torch": "2.99.1"},
            "host": "a-host",
            "command": "raysp finetune recipe.py",
            "resolved": self.resolved,
        }
        self._record["runs"].append(run)
        self.files.write(".raysp/recipe.json", self._record)
        return run

    def step(self, done: int, **changes: object) -> dict[str, Any]:
        """Make the record of a step of two seconds."""
        noise = random.Random(done)
        epoch, step = divmod(done, 10)
        values = {
            "loss": 4 * math.exp(-done / 15) + 0.2 + 0.1 * noise.random(),
            "norm": 1 + noise.random(),
            "learning_rate": 3e-4 * min(1, done / 4),
            "rows": 30,
            "audio_seconds": 100.0,
            "seconds": 2.0,
            "waited": 0.1,
            "share": (done - 1) / (10 * self.epochs),
        }
        return {"done": done, "epoch": epoch, "step": step, **values, **changes}

    def write_metrics(self, numbers: Iterable[int], run_id: str | None = None, **changes: object) -> None:
        """Write the records of some steps."""
        steps = [self.step(done, **changes) for done in numbers]
        self._write_log(run_id or self.run["run_id"], steps)

    def _write_log(self, run_id: str, steps: list[dict[str, Any]]) -> None:
        lines = "".join(f"{json.dumps(step)}\n" for step in steps)
        self.files.write(log_path(run_id, steps[0]["done"], steps[-1]["done"]), lines.encode())

    def train(self, numbers: Iterable[int], run_id: str | None = None, **changes: object) -> None:
        """Write the records of some steps, and commit the last one."""
        numbers = [*numbers]
        if run_id:
            self.begin(run_id)
        self.write_metrics(numbers, run_id, **changes)
        self.commit(numbers[-1])

    def commit(self, done: int, *, num_workers: int = 1, **metrics: float) -> None:
        """Commit a step with some metrics."""
        commit(self.files, done, num_workers=num_workers, **metrics)

    def evaluate(self, *steps: int, run_id: str | None = None, **fields: object) -> None:
        """Record evaluations of some steps, 0: before the first; `fields` replace those of `an_evaluation`."""
        run_id = run_id or self.run["run_id"]
        for done in steps:
            step = done or 1
            of_run = [path for path in self.files.paths(".raysp/log") if path.startswith(f".raysp/log/{run_id}-")]
            recorded = next(filter(partial(_has_step, step), map(self._records, of_run)), [self.step(step)])
            recorded[step - recorded[0]["done"]]["evaluation" if done else "before"] = an_evaluation(**fields)
            self._write_log(run_id, recorded)

    def _records(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files.read(path).splitlines()]

    def export(self, done: int, fingerprint: str = "f00d") -> None:
        """Write the files of a checkpoint with the weights of a step that say that it is one, and its record."""
        figures = {
            "steps": done + 7,
            "weights_of_step": done,
            "rows": 300,
            "audio_seconds": 1234.5,
            "left_out": {"too_long": 2},
        }
        self.files.write("metrics.json", figures)
        self.files.write("config.json", b"{}")
        export = {"fingerprint": fingerprint, "state": "", "epoch": 1, "files": {"config.json": 2}}
        self.files.write(".raysp/export.json", export)

    def hold(self, **process: object) -> None:
        """Write the lease of a run of this process, or of one that differs from it."""
        if not self._lease:
            self.files.write(".raysp/tmp/x", b"left")
            raysp.gc(self.url)  # takes the lease for a moment
            self._lease = json.loads(self.files.read(*self.files.paths(".raysp/lease")))
        [path] = self.files.paths(".raysp/lease")
        changed = {"owner": "ann-1", "process": {**self._lease["process"], **process}, "released": False}
        self.files.write(path, {**self._lease, **changed})


# Evaluations ---------------------------------------------------------------------------------------------------------


def _scores(rows: int, seconds: float, words: tuple[int, int], characters: tuple[int, int], *interval: float) -> Any:
    """Make scores of numbers of words and characters, each with the deleted ones."""
    low, high = interval or (None, None)
    names = ("words", "substitutions", "insertions", "deletions")
    of_characters = ("characters", "character_substitutions", "character_insertions", "character_deletions")
    counts = dict.fromkeys((*names, *of_characters), 0)
    counts |= {"words": words[0], "deletions": words[1]}
    counts |= {"characters": characters[0], "character_deletions": characters[1]}
    wer = {"value": words[1] / words[0], "low": low, "high": high}
    cer = {"value": characters[1] / characters[0], "low": low, "high": high}
    return {"rows": rows, "metrics": {"wer": wer, "cer": cer}, "counts": counts, "seconds": seconds}


def _worst(row: int, reference: str, hypothesis: str, lost: str, start: int) -> dict[str, Any]:
    edit = {"kind": "delete", "reference": lost, "hypothesis": "", "start": start}
    texts = {"reference": reference, "hypothesis": hypothesis, "errors": len(lost.split()), "score": None}
    return {"id": f"u{row}", "shard": "a.parquet", "row": row, "seconds": 1.0, **texts, "edits": [edit]}


EVALUATION: dict[str, Any] = {
    "metric": "wer",
    "scores": _scores(4, 15.4, (10, 5), (46, 26), 0.22, 0.71),
    "by": {
        "seconds": [
            {"value": "<1", "scores": _scores(2, 0.9, (3, 1), (12, 5), 0.0, 0.5)},
            {"value": "2-5", "scores": _scores(1, 2.5, (3, 1), (13, 4))},
            {"value": "10-20", "scores": _scores(1, 12.0, (4, 3), (21, 17))},
        ],
        "speaker": [
            {"value": "ann", "scores": _scores(2, 14.5, (7, 4), (34, 21), 0.33, 0.75)},
            {"value": "ben", "scores": _scores(1, 0.5, (2, 1), (9, 5))},
            {"value": None, "scores": _scores(1, 0.4, (1, 0), (3, 0))},
        ],
    },
    "worst": [
        _worst(3, "seven eight nine zero", "zero", "seven eight nine", 0),
        _worst(1, "four five", "four", "five", 1),
        _worst(0, "one two three", "one three", "two", 1),
    ],
    "classes": [],
    "loss": 0.25,
    "normalisation": "letters",
    "measure": "",
    "others": {},
}
"""Evaluation of four rows."""


def an_evaluation(wer: float | None = None, **fields: object) -> dict[str, Any]:
    """Return `EVALUATION` with another word error rate, or other fields."""
    found = deepcopy(EVALUATION)
    if wer is not None:
        found["scores"]["metrics"]["wer"] = {"value": wer, "low": None, "high": None}
    return {**found, **fields}
