"""When a run stops because too many rows fail, and which shards wait until it is known."""

import pytest

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.error_rate import ErrorRate
from raysp.sink.todo import Todo


class TestErrorRate:
    def todo(self, name: str, rows: int = 100, staged: int = 0) -> Todo:
        pieces = (Piece(0, rows // 2), Piece(rows // 2, rows))
        return Todo(Shard(name, name, 1, "1", rows, "a", pieces), pieces[staged:])

    def test_clean_shards_wait_for_nothing_and_flawed_ones_for_enough_rows(self):
        rate = ErrorRate(0.5)
        rate.add("a", 100, 0)
        rate.add("b", 99, 1)
        assert [shard.name for shard in rate.release(self.todo("a"))] == ["a"]
        assert rate.release(self.todo("b")) == rate.released() == []
        rate.add("c", 1, 0)
        assert [shard.name for shard in rate.released()] == ["b"]

    def test_a_shard_that_fails_by_itself_waits_for_the_end(self):
        rate = ErrorRate(0.5)
        rate.add("a", 900, 0)
        rate.add("b", 100, 80)
        assert rate.release(self.todo("b")) == rate.released() == []
        assert not rate.is_exceeded
        assert [shard.name for shard in rate.released(at_end=True)] == ["b"]
        assert rate.released(at_end=True) == []

    def test_staged_results_of_an_earlier_run_may_hold_error_rows(self):
        rate = ErrorRate(0.5)
        rate.add("a", 30, 0)
        assert rate.release(self.todo("a", staged=1)) == []
        assert [shard.name for shard in rate.released(at_end=True)] == ["a"]

    @pytest.mark.parametrize(
        ("rows", "errors", "is_exceeded"),
        [
            (19, 19, False),
            (20, 16, False),
            (20, 17, True),
            (39, 27, False),
            (39, 30, True),
            (199, 121, False),
            (199, 122, True),
            (200, 100, False),
            (200, 101, True),
        ],
    )
    def test_few_rows_stop_a_run_only_beyond_doubt(self, rows, errors, is_exceeded):
        rate = ErrorRate(0.5)
        rate.add("a", rows, errors)
        assert rate.is_exceeded == is_exceeded

    def test_without_a_limit_nothing_stops_and_without_tolerance_one_row_does(self):
        for most, is_exceeded in ((1.0, False), (0.0, True)):
            rate = ErrorRate(most)
            rate.add("a", 20, 20 if most else 1)
            assert rate.is_exceeded == is_exceeded

    def test_rows_that_are_taken_back_do_not_count(self):
        rate = ErrorRate(0.1)
        rate.add("a", 200, 30)
        assert rate.is_exceeded
        rate.add("a", -50, -30)
        rate.add("a", 50, 0)
        assert (rate.is_known, rate.is_exceeded) == (True, False)
