import re
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import RunError
from raysp.corpus.shards import Piece
from raysp.sink import layout, sorting, stage
from raysp.storage.store import LocalStore
from tests.sink import sinks
from tests.sink.sinks import FINGERPRINT, INPUT_ID, make_shard

SHARD = make_shard()
PIECE = SHARD.pieces[1]


@settings(deadline=None)
@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_a_piece_is_complete_when_a_last_block_and_all_before_it_are_there(blocks):
    assert stage.is_complete(blocks) == any(
        (of - 1, of) in blocks and all((k, of) in blocks or (k, 0) in blocks for k in range(of - 1))
        for of in range(1, 5)
    )


def windows_of(*lengths, first=4):
    """Make the staged windows of rows of so many windows each."""
    places = [
        (row, window, count if window == count - 1 else None)
        for row, count in enumerate(lengths, first)
        for window in range(count)
    ]
    table = sinks.results([row for row, _, _ in places], SHARD.name)
    numbers = [pa.array([place[k] for place in places], pa.int32()) for k in (1, 2)]
    frames = pa.array([None if count == 1 else f"{row}.{w}" for row, w, count in places], pa.string())
    columns = zip(("window", "windows", "frames"), (*numbers, frames), strict=True)
    for name, column in columns:
        table = table.append_column(name, column)
    return table


def joining(windows):
    """Join windows to rows whose values show what was joined."""
    rows = windows.group_by("row", use_threads=False).aggregate([("frames", "list")])
    table = sinks.results(rows["row"].to_pylist(), SHARD.name)
    place = table.column_names.index("pred_text")
    return table.set_column(place, "pred_text", pa.array(["+".join(f) for f in rows["frames_list"].to_pylist()]))


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=5, max_size=5),
    st.lists(st.integers(0, 3), min_size=20, max_size=20),
    st.sampled_from([1, 1000, 10**6]),
    st.data(),
)
def test_windows_of_several_blocks_are_joined_in_order_in_bounded_memory(
    tmp_path_factory, lengths, block_of, num_bytes, data
):
    store = LocalStore(tmp_path_factory.mktemp("sink"))
    table = windows_of(*lengths)
    order = data.draw(st.permutations(range(table.num_rows)))
    of = max(block_of[: table.num_rows]) + 1
    for k in range(of):
        rows = [i for i in order if block_of[i] == k]
        name = stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, k, of if k == of - 1 else 0)
        stage.stage(store, name, table.take(pa.array(rows, pa.int64())))
    tables = list(stage.read_rows(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT, joining, num_bytes=num_bytes))
    assert len(tables) == (5 if num_bytes == 1 else 1 if num_bytes == 10**6 else len(tables))
    found = pa.concat_tables([one.select(["row", "pred_text"]) for one in tables])
    assert found.column("row").to_pylist() == [4, 5, 6, 7, 8]
    for row, count, text in zip(range(4, 9), lengths, found.column("pred_text").to_pylist(), strict=True):
        whole = sinks.results([row], SHARD.name)["pred_text"][0].as_py()
        assert text == ("+".join(f"{row}.{w}" for w in range(count)) if count > 1 else whole)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 2], "row 4: found window 2 of 3, expected window 1 to be the last"),
        ([0, 1], "row 4: found window 1 of more, expected window 1 to be the last"),
        ([1, 2], "row 4: found window 1 of more, expected window 0;"),
        ([0, 1, 1, 2], "row 4: found window 1 of more, expected window 2;"),
        ([0, 1, 2, 2], "row 4: found window 2 of 3, expected window 2;"),
    ],
)
def test_missing_and_duplicate_windows_are_named(store, rows, message):
    table = windows_of(3, 1, 1, 1, 1)
    chosen = table.take([*rows, 3, 4, 5, 6])
    stage.stage(store, stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, 0, 1), chosen)
    with pytest.raises(stage.BrokenStageError, match=re.escape(message)):
        sinks.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT, joining)


def test_windows_that_nothing_joins_are_refused(store):
    stage.stage(store, stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, 0, 1), windows_of(2, 1, 1, 1, 1))
    with pytest.raises(RunError, match="found windows of longer rows, but no way to join them"):
        sinks.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT)


def test_blocks_of_a_piece_that_is_not_whole_go_and_those_of_whole_ones_stay(store):
    sinks.stage_piece(store, SHARD, SHARD.pieces[0], of=2)
    for k in range(3):
        block = stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, k, 0)
        stage.stage(store, block, sinks.results([4 + k], SHARD.name))
    stage.discard_unfinished(store, [SHARD], FINGERPRINT)
    assert set(stage.staged(store, [SHARD], FINGERPRINT)[SHARD.name]) == {SHARD.pieces[0]}


@pytest.mark.parametrize("of", [1, 2, 5])
def test_rows_are_read_in_order_for_any_blocks(store, of):
    sinks.stage_piece(store, SHARD, PIECE, of=of)
    found = sinks.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT)
    assert found.to_pylist() == sinks.results([4, 5, 6, 7, 8], SHARD.name).to_pylist()


@pytest.mark.parametrize("num_bytes", [1, 500, 10**6])
def test_slices_are_the_same_rows_however_few_bytes_may_be_held(store, num_bytes, monkeypatch):
    monkeypatch.setattr(sorting, "PART_BYTES", 300)  # several rows
    piece = Piece(0, 60)
    sinks.stage_piece(store, SHARD, piece, of=7)
    tables = list(stage.read_rows(store, SHARD.name, piece, INPUT_ID, FINGERPRINT, num_bytes=num_bytes))
    assert pa.concat_tables(tables).to_pylist() == sinks.results(list(range(60)), SHARD.name).to_pylist()
    assert len(tables) == {1: 60, 500: len(tables), 10**6: 1}[num_bytes]
    assert not [entry.path for entry in store.list(layout.TMP)]


@pytest.mark.parametrize("num_bytes", [1, 10**6])
@pytest.mark.parametrize(("rows", "message"), [([4, 5, 6, 8], "missing [7]"), ([4, 5, 6, 7, 7, 8], "duplicates 1")])
def test_rows_that_are_missing_or_there_twice_are_named(store, num_bytes, rows, message):
    for k in range(2):
        name = stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, k, 2)
        stage.stage(store, name, sinks.results(rows[k::2], SHARD.name))
    with pytest.raises(stage.BrokenStageError, match=re.escape(message)):
        next(stage.read_rows(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT, num_bytes=num_bytes))


def test_blocks_of_different_columns_are_not_a_piece(store):
    for k, table in enumerate(
        [sinks.results([4, 5], SHARD.name), sinks.results([6, 7, 8], SHARD.name).drop("seconds")]
    ):
        stage.stage(store, stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, k, 2), table)
    with pytest.raises(stage.BrokenStageError, match="a block cannot be read"):
        next(stage.read_rows(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT))


def test_a_cut_that_was_left_unfinished_does_not_disturb_another(store):
    block = stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, 0, 3)
    stage.stage(store, block, sinks.results([4, 8]))
    sinks.stage_piece(store, SHARD, PIECE, of=4)
    found = sinks.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT)
    assert found.column("row").to_pylist() == [4, 5, 6, 7, 8]


def test_staging_twice_keeps_the_first(store):
    block = stage.BlockName(SHARD.name, Piece(0, 1), INPUT_ID, FINGERPRINT, 0, 1)
    stage.stage(store, block, sinks.results([0], "first"))
    stage.stage(store, block, sinks.results([0], "second"))
    found = sinks.read_piece(store, SHARD.name, Piece(0, 1), INPUT_ID, FINGERPRINT)
    assert found.column("pred_text").to_pylist() == ["first text 0"]


def test_only_this_input_and_this_pipeline_count(store):
    for shard, fingerprint in ((SHARD, FINGERPRINT), (replace(SHARD, input_id="00"), FINGERPRINT), (SHARD, "beef")):
        sinks.stage_piece(store, shard, PIECE, of=1, fingerprint=fingerprint)
    [[piece, blocks]] = stage.staged(store, [SHARD], FINGERPRINT)[SHARD.name].items()
    assert (piece, list(blocks)) == (PIECE, [(0, 1)])
    assert blocks[0, 1] == sum(entry.num_bytes for entry in store.list() if f".{FINGERPRINT}." in entry.path) / 2
    assert stage.staged(store, [SHARD], "f00d") == {}
    assert stage.staged(store, [], FINGERPRINT) == {}


def test_missing_blocks_are_determined_from_those_found(store):
    sinks.stage_piece(store, SHARD, PIECE, of=2)
    store.delete(f".raysp/stage/a~/part 1.parquet~/4-9.{INPUT_ID}.{FINGERPRINT}.0of2")
    with pytest.raises(RunError, match=r"rows 4 to 9 of 'a/part 1.parquet': blocks are missing \(found 1 of 2\)"):
        sinks.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT)


def test_removing_a_shard_leaves_others_with_the_same_prefix(store):
    other = make_shard("a/part 1.parquet/deeper.parquet")
    for shard in (SHARD, other, make_shard("a/part 1.parquet2.parquet")):
        sinks.stage_piece(store, shard, PIECE)
    third = make_shard("a/part 1.parquet2.parquet")
    stage.remove_listed(store, stage.listed(store, third.name, third.input_id, FINGERPRINT))
    assert set(stage.staged(store, [SHARD, other], FINGERPRINT)) == {SHARD.name, other.name}


def test_dictionaries_that_differ_between_chunks_can_be_staged(store):
    chunks = [pa.array([text]).dictionary_encode() for text in "ab"]
    table = pa.table({"row": [0, 1], "word": pa.chunked_array(chunks)})
    stage.stage(store, stage.BlockName("d.parquet", Piece(0, 2), "1d", "f1", 0, 1), table)
    found = sinks.read_piece(store, "d.parquet", Piece(0, 2), "1d", "f1")
    assert found.column("word").to_pylist() == ["a", "b"]
