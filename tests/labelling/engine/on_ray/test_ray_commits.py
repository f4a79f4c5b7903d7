"""Which commits share a task, and whose fault it is when its worker dies."""

from collections import deque

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine import ray_commits as commits


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
