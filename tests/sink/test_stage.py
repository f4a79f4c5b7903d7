"""Staged results: which files of a piece and of its parts make it up."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from raysp.corpus.shards import Piece
from raysp.sink import stage
from tests.sink import sinks
from tests.sink.sinks import make_shard

SHARD = make_shard()


def files(*pieces: Piece, errors: int = 0) -> dict[Piece, stage.Staged]:
    return {one: stage.Staged(sinks.staged_name(SHARD, one, errors=errors), 1) for one in pieces}


def numbers(pieces) -> list[int]:
    return [row for piece in pieces for row in range(piece.first, piece.end)]


def numbers_of(staged) -> list[int]:
    return numbers(one.rows for one in staged)


def cost(staged) -> tuple[int, int, int]:
    """Return what is better of two choices if it is less."""
    return -len(numbers_of(staged)), sum(one.name.errors for one in staged), len(staged)


@given(st.dictionaries(st.tuples(st.integers(0, 6), st.integers(1, 5)), st.integers(0, 2), max_size=6))
def test_of_any_files_those_are_used_that_hold_most_rows_and_then_fewest_errors(drawn):
    """Files of several runs may overlap in any way, and those of other pieces are not used."""
    staged = {}
    for (first, num_rows), errors in drawn.items():
        staged |= files(Piece(first, first + num_rows), errors=errors)
    piece = Piece(1, 8)
    tiles = stage.tiles(piece, staged.values())
    inside = [one for one in staged.values() if one.rows.first >= 1 and one.rows.end <= 8]
    choices = [chosen for number in range(len(inside) + 1) for chosen in combinations(inside, number)]
    apart = [chosen for chosen in choices if len({*numbers_of(chosen)}) == len(numbers_of(chosen))]
    assert tiles == sorted(tiles, key=lambda tile: tile.rows)
    assert cost(tiles) == min(cost(chosen) for chosen in apart)
    left = stage.unstaged([piece], staged.values())
    assert sorted([*numbers_of(tiles), *numbers(left)]) == numbers([piece])
