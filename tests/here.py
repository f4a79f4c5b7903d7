"""Runs in this process: what `raysp run` does, by the same parts, with Ray's part done one after the other."""

import contextlib
import json

import pyarrow as pa
import pytest

from raysp.engine import execution, running
from raysp.engine.tasks import Job, LabelActor, Reader, commit_shard, piece_item
from raysp.io.shards import Shard
from raysp.planning import Plan
from raysp.sink.receipts import ShardReceipt
from tests.corpora import NobodyDies


class CommitsHere:
    """Commits shards in this process, and tells of it when it is asked."""

    def __init__(self, job: Job, retries) -> None:
        self.job, self.retries, self.in_flight = job, retries, {}

    def start(self, shard: Shard) -> None:
        outcome = commit_shard(self.job, shard, self.retries.get(shard.name))
        assert isinstance(outcome, ShardReceipt), outcome
        self.in_flight[outcome.shard] = outcome

    def begun(self) -> list[str]:
        return list(self.in_flight)

    def finished(self) -> list[ShardReceipt]:
        found, self.in_flight = list(self.in_flight.values()), {}
        return found

    rest = finished

    def stop(self, seconds: float) -> list[ShardReceipt]:
        return self.finished()


def receipts_here(plan: Plan, job: Job):
    reader, actor = Reader(job), LabelActor(job)
    for todo in plan.todo:
        for piece in todo.pieces:
            for packed in reader(pa.table({"piece": [piece_item(todo.shard, piece, todo.retry)]})):
                yield json.loads(actor(packed).column("receipt")[0].as_py())


def run_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `raysp.run`, `raysp.retry` and the command line label in this process."""
    monkeypatch.setattr(execution, "Commits", CommitsHere)
    monkeypatch.setattr(execution, "receipts", receipts_here)
    monkeypatch.setattr(execution, "salvage", lambda *_: iter(()))
    monkeypatch.setattr(running, "Attempts", NobodyDies)
    for name in ("local_ray", "pickling_kept", "quiet_datasets"):
        monkeypatch.setattr(running, name, lambda *_: contextlib.nullcontext())
