"""Index of training rows: round trips, and rows and pieces counted over a corpus."""

import itertools

import numpy as np
import pytest

from raysp import StoreError
from raysp.corpus.shards import Piece, Shard
from raysp.storage.store import LocalStore
from raysp.training.sink.index_record import ShardIndex, combine, load, load_all, missing, path_of, save


def shard(name: str, rows: int, *edges: int, part: str = "") -> Shard:
    cut = [0, *edges, rows]
    pieces = tuple(Piece(first, end) for first, end in itertools.pairwise(cut) if rows)
    return Shard(f"{name}.parquet", f"in/{name}", 10, "1", rows, f"id-{name}", pieces, part=part)


def an_index(rows: int) -> ShardIndex:
    reasons = ["filtered" if row % 3 == 1 else "empty_text" if row % 5 == 2 else "" for row in range(rows)]
    return ShardIndex.of([row + 0.5 for row in range(rows)], [*range(rows)], reasons, {"a": rows, "ß": 1})


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(str(tmp_path))


def same(one: ShardIndex, other: ShardIndex) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("seconds", "num_labels", "reason")
    )
    return arrays and (one.reasons, one.counts) == (other.reasons, other.counts)


def test_an_index_comes_back_as_it_was_written(store):
    one, index = shard("a", 10), an_index(10)
    save(store, one, "key", index)
    save(store, one, "key", an_index(10))  # by a process that was thought to have ended
    found = load(store, one, "key")
    assert same(found, index)
    assert found.seconds.dtype == np.float32


def test_shards_parts_and_keys_have_files_of_their_own(store):
    shards = [shard("a", 3), shard("a", 3, part="0-3"), shard("b", 3)]
    assert missing(store, shards, "key") == shards
    save(store, shards[1], "key", an_index(3))
    assert missing(store, shards, "key") == [shards[0], shards[2]]
    assert missing(store, shards, "other") == shards


def test_numbers_of_labels_beyond_the_type_are_the_largest():
    assert ShardIndex.of([1.0], [100_000], [""]).num_labels.tolist() == [65_535]


def test_what_is_not_the_index_of_the_shard_is_refused(store, tmp_path):
    one = shard("a", 4)
    save(store, one, "key", an_index(3))
    with pytest.raises(StoreError, match=r"found 3 rows, expected 4\); remove this index, and run again"):
        load(store, one, "key")
    (tmp_path / path_of(one, "key")).write_bytes(b"not an index")
    with pytest.raises(StoreError, match="damaged"):
        load(store, one, "key")
    with pytest.raises(StoreError):
        load(store, one, "other")


def test_rows_and_pieces_are_counted_over_the_corpus(store):
    shards = [shard("empty", 0), shard("a", 10, 4), shard("none", 0), shard("b", 5), shard("last", 0)]
    for one in shards:
        save(store, one, "key", an_index(one.num_rows))
    corpus = combine(load_all(store, shards, "key"))
    assert corpus.first_rows.tolist() == [0, 0, 10, 10, 15, 15]
    assert corpus.piece_rows.tolist() == [0, 4, 10, 15]
    found = [corpus.piece(number) for number in range(3)]
    assert found == [(shards[1], Piece(0, 4)), (shards[1], Piece(4, 10)), (shards[3], Piece(0, 5))]
    places = [corpus.place_of(row) for row in (0, 9, 10, 14)]
    assert places == [("a.parquet", 0), ("a.parquet", 9), ("b.parquet", 0), ("b.parquet", 4)]
    assert corpus.seconds[:4].tolist() == [0.5, 0.0, 0.0, 3.5]
    assert corpus.seconds[10:].tolist() == [0.5, 0.0, 0.0, 3.5, 0.0]
    assert corpus.left_out == {"filtered": 3 + 2, "empty_text": 1 + 1}
    assert corpus.counts == {"a": 15, "ß": 5}


def test_a_corpus_without_shards_has_no_rows():
    corpus = combine([])
    assert (corpus.seconds.tolist(), corpus.piece_rows.tolist(), corpus.left_out) == ([], [0], {})
