"""Indexes of many rows, which several processes make."""

import contextlib
import logging
import subprocess

import numpy as np
import pytest

import raysp
from raysp import Text
from raysp.cluster import spreading
from raysp.corpus import surveys
from raysp.storage.store import LocalStore
from raysp.training.data import indexing
from raysp.training.data.indexing import Indexer
from raysp.training.objectives.task import task_of
from raysp.training.planning.training_plan import plan_training
from raysp.training.preparing import prepare
from tests.recipes import a_recipe, write_words


def upper_half(rows):
    return {"half": [len(text or "") // 2 for text in rows.column("text").to_pylist()]}


MAPPED = [
    raysp.Decode(),
    raysp.Map(upper_half, adds={"half": "int32"}, reads=["text"]),
    raysp.Keep(where=[("half", ">", 1)]),
]


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen]:
    """The processes that index; all shards have enough rows for them."""
    found = []

    class Kept(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            if spreading.MAIN in arguments[0]:
                found.append(self)

    monkeypatch.setattr(surveys.subprocess, "Popen", Kept)
    monkeypatch.setattr(indexing, "WORTH_ROWS", 1)
    return found


@pytest.fixture
def planned(tiny, tmp_path):
    """A plan of five shards, of which the fourth changes before it is indexed."""

    def plan(**fields):
        url = write_words(tmp_path / "in", 12, 25, 8, 10, 14)
        plan = plan_training(a_recipe(url, tiny, tmp_path / "out", objective={"text": Text("lower")}, **fields))
        changed = tmp_path / "in" / "3.parquet"
        changed.write_bytes(changed.read_bytes()[:-100])
        return plan

    return plan


def prepared(plan, monkeypatch, processes: int, store=None):
    calls = []
    monkeypatch.setattr("raysp.training.preparing.num_cpus", lambda: processes)
    return prepare(plan, store, on_indexed=lambda *call: calls.append(call)), calls


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([raysp.Decode()], id="headers"),
        pytest.param(MAPPED, id="a step of the user's", marks=pytest.mark.soak),
    ],
)
def test_processes_make_the_index_that_one_makes(planned, tmp_path, monkeypatch, started, steps):
    plan = planned(steps=steps)
    alone, calls = prepared(plan, monkeypatch, 1)
    assert (started, calls) == ([], [(number, 5) for number in range(5)])
    store = LocalStore(tmp_path / "out")
    together, same_calls = prepared(plan, monkeypatch, 2, store)
    assert (len(started), same_calls) == (2, calls)
    assert all(process.returncode is not None for process in started)
    for name in ("first_rows", "piece_rows", "seconds", "num_labels"):
        assert np.array_equal(getattr(together.corpus, name), getattr(alone.corpus, name))
    assert together.corpus.left_out == alone.corpus.left_out
    assert (together.corpus.counts, together.fingerprint) == (alone.corpus.counts, alone.fingerprint)
    assert together.unreadable == alone.unreadable
    assert [*together.unreadable] == ["3.parquet"]
    again, calls = prepared(plan, monkeypatch, 2, store)
    assert (again.index.digest, calls, len(started)) == (alone.index.digest, [(4, 5)], 2)


@pytest.mark.drivers
@pytest.mark.slow
def test_shards_of_a_process_that_is_killed_are_indexed_by_this_one(planned, started, caplog):
    plan = planned()
    task = task_of(plan)
    indexer = Indexer(plan.recipe, plan.checkpoint, task.targets, task.min_samples(plan), plan.code)
    expected = [*indexer.index(plan.corpus.shards, None, processes=1)]
    with contextlib.closing(indexer.index(plan.corpus.shards, None, processes=2)) as made:
        found = [next(made)]
        started[0].kill()
        found += made
    assert {one.name: str(index) for one, index in found} == {one.name: str(index) for one, index in expected}
    [warning] = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert "a process that indexes rows ended with signal SIGKILL; this process does the rest for it" in warning


@pytest.mark.drivers
@pytest.mark.slow
def test_tasks_of_a_cluster_make_the_index_that_one_process_makes(planned, monkeypatch, local_ray):
    plan = planned()
    alone, _ = prepared(plan, monkeypatch, 1)
    monkeypatch.setattr(indexing, "WORTH_ROWS", 1)
    together = prepare(plan, None, on_cluster=True)
    assert together.index.digest == alone.index.digest
    assert (together.corpus.counts, together.unreadable) == (alone.corpus.counts, alone.unreadable)
