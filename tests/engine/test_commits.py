"""Which commits share a task, and whose fault it is when its worker dies."""

import os
from collections import deque

import pytest

from raysp.engine import commits
from raysp.io.shards import Piece, Shard
from raysp.sink.receipts import ShardFailure, ShardReceipt


def shard(name: str, rows: int = 10) -> Shard:
    return Shard(name, name, 1, "", rows, "0" * 16, (Piece(0, rows),))


def batches(*rows: int) -> list[int]:
    """Count the shards of each batch that shards of so many rows make."""
    waiting = deque((shard(str(number), count), None) for number, count in enumerate(rows))
    found = []
    while waiting:
        found.append([due[0].name for due in commits.next_batch(waiting)])
    assert [name for batch in found for name in batch] == [str(number) for number in range(len(rows))]
    return [len(batch) for batch in found]


def test_small_shards_share_a_task_and_large_ones_have_one_each():
    most, rows = commits.SHARDS_A_TASK, commits.ROWS_A_TASK
    assert batches(*[10] * (2 * most + 1)) == [most, most, 1]
    assert batches(*[rows] * 3) == [1, 1, 1]
    assert batches(10, rows, 10, rows - 20, 10, 10) == [1, 1, 3, 1]
    assert batches(100 * rows) == [1]


def test_shards_in_flight_are_bounded_whatever_their_size():
    found = commits.Commits.__new__(commits.Commits)
    found.in_flight = {number: [None] * commits.SHARDS_A_TASK for number in range(3)}
    assert found._has_room()
    found.in_flight[3] = [None]
    assert not found._has_room()
    found.in_flight = {number: [None] for number in range(commits.TASKS_IN_FLIGHT)}
    assert not found._has_room()


def dies_of_one(_job, batch):
    """Stand in for the work of a commit task."""
    if any(due[0].name == "deadly" for due in batch):
        os._exit(1)
    return [ShardReceipt(shard=due[0].name, rows=10, ok=10, skipped=0, error=0) for due in batch]


@pytest.mark.cluster
def test_one_shard_whose_commit_kills_its_worker_takes_no_other_with_it(local_ray, monkeypatch):
    import ray

    monkeypatch.setattr(commits, "TASKS_IN_FLIGHT", 1)
    found = commits.Commits(None, {})
    found.task = ray.remote(dies_of_one).options(num_cpus=0, max_retries=0)
    for name in ("first", "a", "deadly", "b"):  # the first is in flight by itself; the others wait together
        found.start(shard(name))
    assert found.begun() == ["first"]
    outcomes = {one.shard: one for one in found.rest()}
    assert sorted(outcomes) == ["a", "b", "deadly", "first"]
    assert found.begun() == []
    assert isinstance(outcomes.pop("deadly"), ShardFailure)
    assert all(isinstance(one, ShardReceipt) for one in outcomes.values())
