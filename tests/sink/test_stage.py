from dataclasses import replace

import pyarrow as pa
import pytest
import sinks
from hypothesis import given
from hypothesis import strategies as st
from sinks import FINGERPRINT, INPUT_ID, make_shard

from raysp.errors import RunError
from raysp.io.shards import Piece
from raysp.io.store import LocalStore
from raysp.sink import stage

SHARD = make_shard()
PIECE = SHARD.pieces[1]


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(1, 4))))
def test_a_piece_is_complete_when_all_blocks_of_one_cut_are_there(blocks):
    assert stage.is_complete(blocks) == any(all((k, of) in blocks for k in range(of)) for of in range(1, 5))


@pytest.mark.parametrize("of", [1, 2, 5])
def test_rows_come_back_in_order_whatever_the_blocks(store, of):
    sinks.stage_piece(store, SHARD, PIECE, of=of)
    found = stage.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT)
    assert found.to_pylist() == sinks.results([4, 5, 6, 7, 8], SHARD.name).to_pylist()


def test_a_cut_that_was_left_unfinished_does_not_disturb_another(store):
    block = stage.BlockName(SHARD.name, PIECE, INPUT_ID, FINGERPRINT, 0, 3)
    stage.stage(store, block, sinks.results([4, 8]))
    sinks.stage_piece(store, SHARD, PIECE, of=4)
    found = stage.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT)
    assert found.column("row").to_pylist() == [4, 5, 6, 7, 8]


def test_staging_twice_keeps_the_first(store):
    block = stage.BlockName(SHARD.name, Piece(0, 1), INPUT_ID, FINGERPRINT, 0, 1)
    stage.stage(store, block, sinks.results([0], "first"))
    stage.stage(store, block, sinks.results([0], "second"))
    found = stage.read_piece(store, SHARD.name, Piece(0, 1), INPUT_ID, FINGERPRINT)
    assert found.column("pred_text").to_pylist() == ["first text 0"]


def test_only_this_input_and_this_pipeline_count(store):
    for shard, fingerprint in ((SHARD, FINGERPRINT), (replace(SHARD, input_id="00"), FINGERPRINT), (SHARD, "beef")):
        sinks.stage_piece(store, shard, PIECE, of=1, fingerprint=fingerprint)
    assert stage.staged(store, [SHARD], FINGERPRINT) == {SHARD.name: {PIECE: {(0, 1)}}}
    assert stage.staged(store, [SHARD], "f00d") == {}
    assert stage.staged(store, [], FINGERPRINT) == {}


def test_missing_blocks_are_told_from_those_found(store):
    sinks.stage_piece(store, SHARD, PIECE, of=2)
    store.delete(f".raysp/stage/a~/part 1.parquet~/4-9.{INPUT_ID}.{FINGERPRINT}.0of2")
    with pytest.raises(RunError, match=r"rows 4 to 9 of 'a/part 1.parquet': blocks are missing \(found 1 of 2\)"):
        stage.read_piece(store, SHARD.name, PIECE, INPUT_ID, FINGERPRINT)


def test_removing_a_shard_leaves_others_whose_names_begin_alike(store):
    other = make_shard("a/part 1.parquet/deeper.parquet")
    for shard in (SHARD, other, make_shard("a/part 1.parquet2.parquet")):
        sinks.stage_piece(store, shard, PIECE)
    stage.remove(store, "a/part 1.parquet2.parquet")
    assert set(stage.staged(store, [SHARD, other], FINGERPRINT)) == {SHARD.name, other.name}


def test_dictionaries_that_differ_between_chunks_can_be_staged(store):
    chunks = [pa.array([text]).dictionary_encode() for text in "ab"]
    table = pa.table({"row": [0, 1], "word": pa.chunked_array(chunks)})
    stage.stage(store, stage.BlockName("d.parquet", Piece(0, 2), "1d", "f1", 0, 1), table)
    found = stage.read_piece(store, "d.parquet", Piece(0, 2), "1d", "f1")
    assert found.column("word").to_pylist() == ["a", "b"]
