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


def test_a_task_requests_its_memory_up_to_that_of_a_node(monkeypatch):
    step = commits.MEMORY_STEP
    monkeypatch.setattr(commits, "node_memories", lambda: [0.0, 10.5 * step, 3.0 * step])

    def asked(*memory, actor_memory=0):
        return commits.requested_memory([commits.Due(shard(str(each)), None, each) for each in memory], actor_memory)

    assert asked(step // 2, step // 4) is None
    assert asked(step) == step
    assert asked(5 * step, step) == 8 * step
    assert asked(100 * step) == int(10.5 * step)  # a wish that no node could ever grant would wait for ever
    assert asked(5 * step, actor_memory=4 * step) == int(3 * step)  # two actors leave 2.5 steps on the large node
    assert asked(5 * step, actor_memory=int(10.5 * step)) == int(3 * step)
    monkeypatch.setattr(commits, "node_memories", lambda: [4.0 * step])
    assert asked(5 * step, actor_memory=2 * step) is None


def test_shards_in_flight_are_bounded_for_any_size():
    found = commits.Commits.__new__(commits.Commits)
    found.in_flight = {number: [None] * commits.SHARDS_A_TASK for number in range(3)}
    assert found._has_room()
    found.in_flight[3] = [None]
    assert not found._has_room()
    found.in_flight = {number: [None] for number in range(commits.TASKS_IN_FLIGHT)}
    assert not found._has_room()


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


@pytest.mark.cluster
def test_commits_continue_if_the_requested_memory_is_in_use(local_ray, monkeypatch):
    import ray

    monkeypatch.setattr(commits, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(commits, "requested_memory", lambda batch, actor_memory: 10**13)
    found = commits.Commits(None, {})
    found.task = ray.remote(succeeds)
    for name in ("a", "b"):
        found.start(shard(name), 10**9)
    assert sorted(one.shard for outcomes in found.rest() for one in outcomes) == ["a", "b"]
    assert not found.requests_memory


def test_the_wait_for_commits_yields_so_that_a_stop_is_noticed(monkeypatch):
    waits: list[float] = []

    def wait(refs, num_returns, timeout):
        waits.append(timeout)
        return (refs, []) if len(waits) == 3 else ([], refs)

    found = commits.Commits.__new__(commits.Commits)
    found.in_flight = {"a": [commits.Due(shard("a"), None)]}
    found.waiting, found.alone, found.stopped = deque(), deque(), False
    found.largest_request, found.last_ended = 0, 0.0
    monkeypatch.setattr(commits.ray, "wait", wait)
    monkeypatch.setattr(commits.ray, "get", lambda ref: succeeds(None, [(shard(ref), None)]))
    assert [[one.shard for one in outcomes] for outcomes in found.rest()] == [[], [], ["a"]]
    assert len(waits) == 3
    assert max(waits) <= 1
