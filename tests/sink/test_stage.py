"""Staged results: which files of a piece and of its parts make it up, and what is removed of them."""

from dataclasses import replace
from itertools import combinations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.corpus.shards import Piece
from raysp.sink import layout, stage
from raysp.sink.commit import Todo
from tests.sink import sinks
from tests.sink.sinks import FINGERPRINT, make_shard

SHARD = make_shard()
PIECE = SHARD.pieces[1]


def halves(piece: Piece) -> list[Piece]:
    """Return a piece, its halves, and theirs, as runs stage them whose workers crash."""
    if piece.num_rows == 1:
        return [piece]
    middle = (piece.first + piece.end) // 2
    return [piece, *halves(Piece(piece.first, middle)), *halves(Piece(middle, piece.end))]


def files(*pieces: Piece, errors: int = 0) -> dict[Piece, stage.Staged]:
    return {one: stage.Staged(sinks.staged_name(SHARD, one, errors=errors), 1) for one in pieces}


@st.composite
def files_of_a_piece(draw) -> tuple[Piece, dict[Piece, stage.Staged]]:
    """Draw a piece, and any of the files that runs may leave of it and of its neighbours."""
    first = draw(st.integers(0, 9))
    piece = Piece(first, first + draw(st.integers(1, 12)))
    there = draw(st.sets(st.sampled_from(halves(piece))))
    beside = draw(st.sets(st.sampled_from([Piece(piece.end, piece.end + 2), Piece(max(0, first - 2), first)])))
    return piece, files(*there, *beside)


def numbers(pieces) -> list[int]:
    return [row for piece in pieces for row in range(piece.first, piece.end)]


def numbers_of(staged) -> list[int]:
    return numbers(one.rows for one in staged)


def cost(staged) -> tuple[int, int, int]:
    """Return what is better of two choices if it is less."""
    return -len(numbers_of(staged)), sum(one.name.errors for one in staged), len(staged)


class TestTiles:
    @given(files_of_a_piece())
    def test_they_and_what_is_left_hold_every_row_once(self, drawn):
        piece, staged = drawn
        tiles = [tile.rows for tile in stage.tiles(piece, staged.values())]
        left = stage.unstaged([piece], staged.values())
        assert tiles == sorted(tiles)
        assert {*tiles} <= staged.keys()
        assert sorted(numbers([*tiles, *left])) == numbers([piece])

    @given(st.dictionaries(st.tuples(st.integers(0, 6), st.integers(1, 5)), st.integers(0, 2), max_size=6))
    def test_of_any_files_those_are_used_that_hold_most_rows_and_then_fewest_errors(self, drawn):
        """Rows that are left need not be halves of the piece, so files of several runs may overlap in any way."""
        staged = {}
        for (first, num_rows), errors in drawn.items():
            staged |= files(Piece(first, first + num_rows), errors=errors)
        tiles = stage.tiles(Piece(1, 8), staged.values())
        inside = [one for one in staged.values() if one.rows.first >= 1 and one.rows.end <= 8]
        choices = [chosen for number in range(len(inside) + 1) for chosen in combinations(inside, number)]
        apart = [chosen for chosen in choices if len({*numbers_of(chosen)}) == len(numbers_of(chosen))]
        assert tiles == sorted(tiles, key=lambda tile: tile.rows)
        assert len({*numbers_of(tiles)}) == len(numbers_of(tiles))
        assert cost(tiles) == min(cost(chosen) for chosen in apart)

    @pytest.mark.parametrize("rows", [(4, 4), (9, 4), (0, 30), (0, 5), (8, 10)])
    def test_files_of_no_rows_or_of_rows_of_other_pieces_are_not_used(self, rows):
        assert stage.unstaged([PIECE], files(Piece(*rows)).values()) == [PIECE]


class TestListed:
    def test_only_this_input_and_this_pipeline_count(self, store):
        other = replace(SHARD, input_id="00")
        for shard, fingerprint in ((SHARD, FINGERPRINT), (other, FINGERPRINT), (SHARD, "beef")):
            name = sinks.stage_piece(store, shard, PIECE, fingerprint)
        [staged] = stage.listed(store, [SHARD], FINGERPRINT)[SHARD.name]
        assert (staged.rows, staged.name) == (PIECE, replace(name, fingerprint=FINGERPRINT))
        assert staged.num_bytes == store.stat(layout.stage_path(staged.name)).num_bytes
        assert stage.listed(store, [SHARD], "f00d") == {}
        assert stage.listed(store, [], FINGERPRINT) == {}

    @pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 0, 2)])
    def test_of_results_of_the_same_rows_those_with_the_fewest_errors_are_used_and_all_removed(self, store, order):
        shard = make_shard(cuts=(0, 3))
        for errors in order:
            table = sinks.results([0, 1, 2], f"{errors} errors").to_pylist()
            failed = [{**row, "status": "error", "pred_text": None} if row["row"] < errors else row for row in table]
            table = pa.Table.from_pylist(failed, schema=sinks.results([0]).schema)
            sinks.stage_piece(store, shard, shard.pieces[0], table=table)
        assert sinks.commit_sample(store, shard).counts.by_status["ok"] == 3
        assert {row["pred_text"] for row in sinks.labels(store, shard)} == {f"0 errors text {row}" for row in range(3)}
        assert list(store.list(layout.STAGE)) == []


class TestRead:
    @pytest.mark.parametrize("num_bytes", [1, 500, 10**6])
    def test_rows_come_in_order_in_batches_of_few_bytes(self, store, num_bytes, monkeypatch):
        monkeypatch.setattr(stage, "BATCH_BYTES", num_bytes)
        piece = Piece(0, 60)
        rows = list(range(60))
        name = sinks.staged_name(SHARD, piece)
        tables = [sinks.results(rows[:7], SHARD.name), sinks.results(rows[7:], SHARD.name)]
        stage.write(store, iter(tables), lambda: name)
        batches = list(stage.read(store, sinks.staged(store, SHARD)[piece], rows))
        assert pa.concat_tables(batches).to_pylist() == sinks.results(rows, SHARD.name).to_pylist()
        assert len(batches) == {1: 60, 500: len(batches), 10**6: 2}[num_bytes]
        assert list(store.list(layout.TMP)) == []

    @pytest.mark.parametrize("damage", ["cut short", "a bit", "another table", "nothing"])
    def test_damaged_files_are_refused_and_removed(self, store, damage):
        path = layout.stage_path(sinks.stage_piece(store, SHARD, PIECE))
        [staged] = sinks.staged(store, SHARD).values()
        data = store.read(path)
        if damage == "another table":
            store.delete(path)
            stage.write(store, [pa.table({"number": [1]})], lambda: staged.name)
        else:
            middle = len(data) // 2
            flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            store.replace(path, {"cut short": data[:-100], "a bit": flipped, "nothing": b""}[damage])
        with pytest.raises(stage.BrokenStageError, match="run again: its rows are labelled again"):
            list(stage.read(store, staged, range(4, 9)))
        assert sinks.staged(store, SHARD) == {}


class TestWithoutFailed:
    def test_rows_of_files_with_too_many_errors_are_left_to_label_with_those_that_are_not_staged(self):
        kept = files(Piece(0, 4)) | files(Piece(4, 6), errors=1)
        bad = files(Piece(6, 7), errors=1) | files(Piece(9, 16), errors=4)
        todo = Todo(SHARD, (Piece(7, 9), Piece(16, 23)), staged=(*bad.values(), *kept.values()))
        again = todo.without_failed(0.5)
        assert again.pieces == (Piece(6, 7), Piece(7, 9), Piece(9, 16), Piece(16, 23))
        assert again.staged == tuple(kept.values())
        assert todo.without_failed(1.0) == todo
