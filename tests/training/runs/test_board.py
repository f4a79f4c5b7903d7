"""State that workers and the driver of a training share, and tasks on their way to workers."""

from raysp.training.on_ray.board import MOST_STARTS, Board


def test_too_many_starts_without_a_commit_are_a_failure():
    board = Board()
    assert all(board.begin(0, 4) for _ in range(MOST_STARTS))
    assert board.begin(0, 6)
    assert all(board.begin(0, 6) for _ in range(MOST_STARTS - 1))
    assert not board.begin(0, 6)
    assert "ended 5 times without a commit between" in str(board.take().failure)
