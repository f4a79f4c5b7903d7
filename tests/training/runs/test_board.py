"""State that workers and the driver of a training share, and tasks on their way to workers."""

import pickle
from collections import Counter

from raysp.training.loop.not_finite import NotFinite, NotFiniteError
from raysp.training.on_ray.board import MOST_STARTS, Board
from raysp.training.sink.step_log import ErrorRow
from tests.recipes import a_recipe
from tests.training.criteria import planned_training
from tests.training.runs.test_objectives import decoders, objective, trained

__all__ = ["decoders", "objective"]  # fixtures

FAILED = [ErrorRow("a.parquet", row, "corrupt_audio", "it ends early") for row in range(3)]


def test_rows_that_could_not_be_decoded_are_handed_on_once():
    board = Board()
    board.leave(None, Counter({"corrupt_audio": 1}), {"corrupt_audio": "a.parquet:0"}, FAILED[:1])
    board.leave(None, Counter({"corrupt_audio": 3}), {"corrupt_audio": "a.parquet:1"}, FAILED[1:])
    news = board.take()
    assert (news.errors, news.examples) == ({"corrupt_audio": 3}, {"corrupt_audio": "a.parquet:0"})
    assert news.failed == FAILED
    again = board.take()
    assert (again.errors, again.failed) == ({"corrupt_audio": 3}, [])


def test_too_many_starts_without_a_commit_are_a_failure():
    board = Board()
    assert all(board.begin(0, 4) for _ in range(MOST_STARTS))
    assert board.begin(0, 6)
    assert all(board.begin(0, 6) for _ in range(MOST_STARTS - 1))
    assert not board.begin(0, 6)
    assert "ended 5 times without a commit between" in str(board.take().failure)


def test_rows_whose_loss_is_not_finite_travel_with_their_error():
    fault = NotFinite("the loss is nan", [3, 7], num_rows=2, grew=False, history="")
    travelled = pickle.loads(pickle.dumps(NotFiniteError(fault)))
    assert (str(travelled), travelled.fault) == ("the loss is nan", fault)
    assert travelled.fault.is_diverged


def test_a_task_travels_to_workers_with_its_targets(words, objective, tmp_path):
    _, prepared = planned_training(trained(words, tmp_path / "out", objective))
    travelled = pickle.loads(pickle.dumps(prepared))
    value = "s1" if prepared.plan.recipe.kept == ("speaker",) else "seven"
    assert travelled.task.targets()(value) == prepared.task.targets()(value)
    assert travelled.task.digest == prepared.task.digest


def test_pieces_travel_to_workers(words, tiny, tmp_path):
    _, prepared = planned_training(a_recipe(words, tiny, tmp_path / "out", objective={"vocabulary": "bpe:30"}))
    travelled = pickle.loads(pickle.dumps(prepared))
    assert travelled.task.digest == prepared.task.digest
    assert travelled.task.targets()("seven nine") == prepared.task.targets()("seven nine")
