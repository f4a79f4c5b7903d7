"""Shares of a sink's shards."""

import itertools

import pytest

from raysp.errors import SpecError
from raysp.sink.shares import ALL, Share

SHARES = [Share(number, of) for of in range(1, 7) for number in range(1, of + 1)]
NAMES = [f"{place}.parquet" for place in range(60)]  # a multiple of every number of shares


def test_shares_overlap_and_cover_each_other_exactly_as_their_names_do():
    for one, other in itertools.product(SHARES, repeat=2):
        mine, others = one.names(NAMES), other.names(NAMES)
        assert one.overlaps(other) == bool(mine & others)
        assert one.covers(other) == (others <= mine)


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_every_name_belongs_to_one_share_and_sizes_differ_by_one_at_most(of):
    shares = [Share(number, of).names(NAMES) for number in range(1, of + 1)]
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_names_that_are_added_move_no_other_name():
    before, after = (Share(2, 3).names(names) for names in (NAMES, [*NAMES, "new.parquet"]))
    assert before <= after


@pytest.mark.parametrize("given", [(0, 2), (3, 2), (1, 0), (-1, 2), (1,), (1, 2, 3), ("1", 2), 3])
def test_shares_that_do_not_exist_are_refused(given):
    with pytest.raises(SpecError, match=r"^shards: found .*, expected \(i, n\) with 1 <= i <= n, such as \(1, 4\)$"):
        Share.read(given)


def test_no_share_is_all_shards():
    assert Share.read(None) == Share.read((1, 1)) == ALL
    assert (ALL.is_whole, Share(1, 2).is_whole, str(Share(2, 3))) == (True, False, "2/3")
