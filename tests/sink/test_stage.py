"""Staged results: which files of a piece and of its parts make it up, and what is removed of them."""

from itertools import combinations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from raysp.corpus.shards import Piece
from raysp.sink import layout, stage
from raysp.sink.commit import Todo
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


def test_of_results_of_the_same_rows_those_with_the_fewest_errors_are_used_and_all_removed(store):
    shard = make_shard(cuts=(0, 3))
    for errors in (2, 0, 1):
        table = sinks.results([0, 1, 2], f"{errors} errors").to_pylist()
        failed = [{**row, "status": "error", "pred_text": None} if row["row"] < errors else row for row in table]
        table = pa.Table.from_pylist(failed, schema=sinks.results([0]).schema)
        sinks.stage_piece(store, shard, shard.pieces[0], table=table)
    assert sinks.commit_sample(store, shard).counts.by_status["ok"] == 3
    assert {row["pred_text"] for row in sinks.labels(store, shard)} == {f"0 errors text {row}" for row in range(3)}
    assert list(store.list(layout.STAGE)) == []


def test_rows_of_files_with_too_many_errors_are_left_to_label_with_those_that_are_not_staged():
    kept = files(Piece(0, 4)) | files(Piece(4, 6), errors=1)
    bad = files(Piece(6, 7), errors=1) | files(Piece(9, 16), errors=4)
    todo = Todo(SHARD, (Piece(7, 9), Piece(16, 23)), staged=(*bad.values(), *kept.values()))
    again = todo.without_failed(0.5)
    assert again.pieces == (Piece(6, 7), Piece(7, 9), Piece(9, 16), Piece(16, 23))
    assert again.staged == tuple(kept.values())
    assert todo.without_failed(1.0) == todo
