"""State that workers and the driver of a training share, and tasks on their way to workers."""

from raysp.training.on_ray.board import MOST_STARTS, Board


def test_too_many_starts_without_a_commit_are_a_failure():
    board = Board()
    assert all(board.begin(0, 2, 4) for _ in range(MOST_STARTS))
    assert board.begin(0, 2, 6)
    assert all(board.begin(0, 2, 6) for _ in range(MOST_STARTS - 1))
    assert not board.begin(0, 2, 6)
    assert "ended 5 times without a commit between" in str(board.take().failure)


def test_workers_that_start_again_for_further_nodes_are_no_failure():
    board = Board()
    assert all(board.begin(0, num_workers, None) for num_workers in range(1, MOST_STARTS + 3))
    assert all(board.begin(0, 1, None) for _ in range(MOST_STARTS - 1))
    assert not board.begin(0, 1, None)
