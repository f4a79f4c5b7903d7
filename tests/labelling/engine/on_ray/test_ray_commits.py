"""Which commits share a task, and whose fault it is when its worker dies."""

import os
from collections import deque

import pytest

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine import ray_commits as commits
from raysp.sink.receipts import Counts, ShardFailure, ShardReceipt


def shard(name: str, rows: int = 10) -> Shard:
    return Shard(name, name, 1, "", rows, "0" * 16, (Piece(0, rows),))


def batches(*rows: int) -> list[int]:
    """Count the shards of each batch that shards of so many rows make."""
    return batches_of([commits.Due(shard(str(number), count), None) for number, count in enumerate(rows)])


def batches_of(dues: list[commits.Due]) -> list[int]:
    waiting, found = deque(dues), []
    while waiting:
        found.append([due.shard.name for due in commits.next_batch(waiting)])
    assert [name for batch in found for name in batch] == [due.shard.name for due in dues]
    return [len(batch) for batch in found]


def test_small_shards_share_a_task_and_large_ones_have_one_each():
    most, rows = commits.SHARDS_A_TASK, commits.ROWS_A_TASK
    assert batches(*[10] * (2 * most + 1)) == [most, most, 1]
    assert batches(*[rows] * 3) == [1, 1, 1]
    assert batches(10, rows, 10, rows - 20, 10, 10) == [1, 1, 3, 1]
    assert batches(100 * rows) == [1]


def test_shards_with_large_commits_have_a_task_each_for_any_number_of_rows():
    def due(name, memory):
        return commits.Due(shard(name), None, memory)

    most = commits.BYTES_A_TASK
    assert batches_of([due("a", most), due("b", most), due("c", 10 * most)]) == [1, 1, 1]
    assert batches_of([due(str(number), most // 4) for number in range(9)]) == [4, 4, 1]


def of_bytes(most: int) -> list[commits.Due]:
    return [commits.Due(shard("a"), None, most)]


def test_shards_in_flight_are_bounded_for_any_size():
    small, pool = commits.Due(shard("a"), None), commits.Commits.__new__(commits.Commits)
    pool.in_flight = {number: [small] * commits.SHARDS_A_TASK for number in range(3)}
    assert pool._has_room()
    pool.in_flight[3] = [small]
    assert not pool._has_room()
    pool.in_flight = {number: [small] for number in range(commits.TASKS_IN_FLIGHT)}
    assert not pool._has_room()


def test_bytes_in_flight_are_bounded_and_one_large_commit_runs_alone():
    pool = commits.Commits.__new__(commits.Commits)
    pool.in_flight = {}
    assert pool._has_room()
    pool.in_flight = {0: of_bytes(commits.BYTES_IN_FLIGHT - 1)}
    assert pool._has_room()
    pool.in_flight[1] = of_bytes(1)
    assert not pool._has_room()
    pool.in_flight = {0: of_bytes(10 * commits.BYTES_IN_FLIGHT)}
    assert not pool._has_room()


def crashes_on_one(_job, batch):
    """Stand in for the work of a commit task."""
    if any(due[0].name == "deadly" for due in batch):
        os._exit(1)
    return [ShardReceipt(due[0].name, Counts(10)) for due in batch], {}


@pytest.mark.cluster
def test_a_shard_whose_commit_crashes_its_worker_does_not_affect_others(local_ray, monkeypatch):
    import ray

    monkeypatch.setattr(commits, "TASKS_IN_FLIGHT", 1)
    found = commits.Commits(None, {})
    monkeypatch.setattr(commits, "MAX_RETRIES", 0)
    found.task = ray.remote(crashes_on_one)
    for name in ("first", "a", "deadly", "b"):  # the first is in flight by itself; the others wait together
        found.start(shard(name), 0)
    assert [[due.shard.name for due in batch] for batch in found.in_flight.values()] == [["first"]]
    outcomes = {one.shard: one for outcomes in found.rest() for one in outcomes}
    assert sorted(outcomes) == ["a", "b", "deadly", "first"]
    assert not found.in_flight
    assert isinstance(outcomes.pop("deadly"), ShardFailure)
    assert all(isinstance(one, ShardReceipt) for one in outcomes.values())


def succeeds(_job, batch):
    """Stand in for the work of a commit task."""
    return [ShardReceipt(due[0].name, Counts(10)) for due in batch], {}


class Submitted:
    """Stand-in for a task of Ray that records what is submitted."""

    def __init__(self) -> None:
        self.shards: list[str] = []

    def options(self, **_options: object) -> "Submitted":
        return self

    def remote(self, _job: object, batch: list[tuple[Shard, None]]) -> str:
        self.shards += [shard.name for shard, _ in batch]
        return " ".join(shard.name for shard, _ in batch)


@pytest.mark.parametrize("ends", ["none", "all", "a crash"])
def test_after_a_stop_no_commit_is_submitted(ends, monkeypatch):
    def get(ref):
        if ends == "a crash":
            raise commits.ray.exceptions.WorkerCrashedError
        return succeeds(None, [(shard(name), None) for name in ref.split()])

    monkeypatch.setattr(
        commits.ray, "wait", lambda refs, num_returns, timeout: ([], refs) if ends == "none" else (refs, [])
    )
    monkeypatch.setattr(commits.ray, "get", get)
    monkeypatch.setattr(commits, "TASKS_IN_FLIGHT", 2)
    pool = commits.Commits(None, {})
    pool.task = Submitted()
    pool.start(shard("a"), 0)
    pool.alone.extend([commits.Due(shard("alone"), None)])
    for name in ("b", "c", "d"):
        pool.start(shard(name), 0)
    before = list(pool.task.shards)
    assert before == ["a", "alone"]
    outcomes = [*pool.stop(0.0), *pool.finished()]
    assert pool.task.shards == before
    assert len(outcomes) == {"none": 0, "all": 2, "a crash": 2}[ends]


def test_the_wait_for_commits_yields_so_that_a_stop_is_noticed(monkeypatch):
    waits: list[float] = []

    def wait(refs, num_returns, timeout):
        waits.append(timeout)
        return (refs, []) if len(waits) == 3 else ([], refs)

    found = commits.Commits.__new__(commits.Commits)
    found.in_flight = {"a": [commits.Due(shard("a"), None)]}
    found.waiting, found.alone, found.stopped = deque(), deque(), False
    found.task = Submitted()
    monkeypatch.setattr(commits.ray, "wait", wait)
    monkeypatch.setattr(commits.ray, "get", lambda ref: succeeds(None, [(shard(ref), None)]))
    assert [[one.shard for one in outcomes] for outcomes in found.rest()] == [[], [], ["a"]]
    assert len(waits) == 3
    assert max(waits) <= 1
