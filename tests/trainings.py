"""Sinks of trainings, written without training, for tests of what reads them."""

import json
import math
import random
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from raysp.sink import layout
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore, Store
from raysp.training.sink import committed_steps, training_record
from raysp.training.sink import step_metrics as metrics
from raysp.training.sink.committed_steps import Position
from raysp.training.sink.step_metrics import MetricsLog, StepMetrics

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


class Sink:
    """The sink of a training of epochs of ten steps.

    Args:
        place: the sink.
        recipe: fields that replace those of `RECIPE`.
    """

    def __init__(self, place: Path | Store, **recipe: object) -> None:
        self.store = LocalStore(place) if isinstance(place, Path) else place
        self.recipe = {**RECIPE, **recipe}
        self.epochs = self.recipe["schedule"]["epochs"] or 4
        self.run = RunEntry.now(command=["raysp", "finetune", "recipe.py"])
        training_record.begin(self.store, self.run, recipe=self.recipe, fingerprint="f00d", parts={"seed": 0})

    def step(self, done: int, **changes: object) -> StepMetrics:
        """Make the metrics of a step of two seconds."""
        noise = random.Random(done)
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
        return StepMetrics(done, *self._place(done), **{**values, **changes})

    def train(self, numbers: Iterable[int], run_id: str | None = None, **changes: object) -> None:
        """Write the metrics of some steps, and commit the last one."""
        run = replace(self.run, run_id=run_id or self.run.run_id)
        self.store.create(layout.run_path(run.run_id), json.dumps(asdict(run)).encode())
        log = MetricsLog(self.store, run.run_id)
        for done in numbers:
            log.add(self.step(done, **changes))
        log.write()
        self.commit(done)

    def commit(self, done: int, **metrics: float) -> None:
        """Commit a step with some metrics."""
        writers = {"model": lambda path: path.write_bytes(b"weights") and None}
        facts = {"fingerprint": "f00d", "index": "i", "num_workers": 1, "metrics": metrics}
        committed_steps.commit(self.store, Position(done, *self._place(done)), writers, **facts)

    def export(self, done: int) -> None:
        """Write the files of a checkpoint with the weights of a step that say that it is one."""
        figures = {
            "steps": done + 7,
            "weights_of_step": done,
            "rows": 300,
            "audio_seconds": 1234.5,
            "left_out": {"too_long": 2},
        }
        self.store.replace("metrics.json", json.dumps(figures).encode())
        self.store.replace("config.json", b"{}")

    def _place(self, done: int) -> tuple[int, int]:
        """Return the epoch and its step after a number of updates."""
        return divmod(done, 10)

    def metrics(self) -> list[StepMetrics]:
        """Read the metrics back."""
        return metrics.load(self.store)
