"""The driver's judgement of dead processes: which rows are to blame, which loads end a run."""

import math

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError

from raysp.labelling.engine import ray_pool
from raysp.labelling.engine.job import LabelledPiece, RetriedPiece
from raysp.labelling.engine.ray_actor import LostReader
from tests.labelling.engine.on_ray.stand_in import PIECES, Cluster, LostError

ROWS = set(range(100))
WHOLE = {tuple(range(piece.first, piece.end)) for piece in PIECES}


def kills(deadly: set[int], error: object = None):
    """Return a function that kills the actor of a piece with such rows."""
    return lambda rows, tried: (error or ActorDiedError()) if deadly & set(rows) else None


def check(cluster: Cluster, deadly: set[int]) -> None:
    assert sorted(cluster.crashed) == sorted(deadly)
    assert sorted(cluster.labelled) == sorted(ROWS - deadly)


@pytest.mark.parametrize("deadly", [{0}, {99}, {3, 4}, {0, 50, 99}])
@pytest.mark.parametrize("reads", [False, True], ids=["actor", "reader"])
def test_exactly_the_rows_that_kill_processes_are_blamed(monkeypatch, deadly, reads):
    cluster = Cluster(kills(deadly, LostReader("a", is_memory=False) if reads else None))
    messages = cluster.run(monkeypatch)
    check(cluster, deadly)
    staged = [one for one in messages if isinstance(one, LabelledPiece)]
    assert sum(one.receipt.end - one.receipt.first for one in staged) == 100
    assert sum(isinstance(one, RetriedPiece) for one in messages) >= sum(cluster.tried.values()) - len(staged)


def test_a_row_is_found_after_a_crash_per_halving_and_the_other_piece_is_not_tried_again(monkeypatch):
    cluster = Cluster(kills({30}))
    cluster.run(monkeypatch)
    assert 1 <= len(cluster.beside) <= 1 + math.ceil(math.log2(50)) + ray_pool.ALONE
    assert cluster.tried[30,] == ray_pool.ALONE + 1  # the last time, it becomes an error row
    assert cluster.tried[tuple(range(50, 100))] == 1


@pytest.mark.parametrize("error", [LostError(), LostReader("gone", is_memory=False), LostReader("", is_memory=True)])
def test_the_loss_of_a_node_is_not_the_fault_of_a_row(monkeypatch, error):
    cluster = Cluster(lambda rows, tried: error if 5 in rows and tried <= 20 else None)
    cluster.run(monkeypatch)
    check(cluster, set())
    assert set(cluster.tried) == WHOLE  # nothing was halved


@pytest.mark.parametrize("error", [OutOfMemoryError("killed"), LostReader("a", is_memory=True)])
def test_a_lack_of_memory_is_the_fault_of_a_row_only_if_nothing_runs_beside_it(monkeypatch, error):
    cluster = Cluster(kills({5}, error))
    cluster.run(monkeypatch)
    check(cluster, {5})
    if isinstance(error, OutOfMemoryError):
        assert {in_hand for rows, in_hand in cluster.beside if rows == (5,)} == {1}


def test_a_row_that_ran_out_of_memory_only_beside_others_is_labelled(monkeypatch):
    def ends(rows, tried):
        in_hand = sum(len(one.pieces) for one in cluster.handles)
        return OutOfMemoryError("killed") if 5 in rows and in_hand > 1 else None

    cluster = Cluster(ends)
    cluster.run(monkeypatch)
    check(cluster, set())
    assert set(cluster.tried) == WHOLE


def test_an_actor_that_dies_is_replaced_once(monkeypatch):
    cluster = Cluster(lambda rows, tried: LostError() if 5 in rows and tried == 1 else None, high=1)
    cluster.run(monkeypatch)
    assert cluster.events == ["actor_started", "actor_lost", "actor_started", "actor_released"]
    assert all(handle.is_dead for handle in cluster.handles)


def test_the_next_actor_starts_on_a_node_on_which_no_load_has_failed(monkeypatch):
    cluster = Cluster(loads=lambda node: "a bad GPU" if node == "a" else None, high=1)
    cluster.run(monkeypatch)
    check(cluster, set())
    assert [one.options.get("label_selector") for one in cluster.handles] == [None, {"ray.io/node-id": "!in(a)"}]
    assert cluster.events == ["actor_failed", "actor_started", "actor_released"]
