"""State that workers and the driver of a training share, and tasks on their way to workers."""

from collections import Counter

from raysp.training.on_ray.board import MOST_STARTS, Board
from raysp.training.sink.step_log import ErrorRow

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
