"""Index of a source in a sink: one Parquet file, of which only shards that changed are made again."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysp import Finetune, StoreError, Text
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.training.trained import indexed, planned

ROWS = (12, 9, 8, 4)


@pytest.fixture
def recipe(tiny, tmp_path) -> Finetune:
    return a_recipe(write_words(tmp_path / "in", *ROWS), tiny, tmp_path / "out")


def made(recipe: Finetune, **options: object) -> int:
    """Index a corpus, and forget the training, as if it was killed before; return the number of indexed shards."""
    calls = indexed(recipe, **options)
    (Path(recipe.sink.url) / ".raysp" / "recipe.json").unlink()
    return max(0, len(calls) - 1)


def index_of(recipe: Finetune) -> Path:
    return Path(recipe.sink.url) / ".raysp" / "index" / "source.parquet"


def test_an_index_has_all_rows_in_order_and_is_made_once_for_a_shard_and_a_recipe(recipe, tiny, tmp_path):
    assert indexed(recipe) == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    written = index_of(recipe).read_bytes()
    assert made(recipe) == 0
    assert index_of(recipe).read_bytes() == written
    table = pq.read_table(index_of(recipe))
    assert table.column_names == ["shard", "row", "seconds", "num_labels", "reason", "version", "facts"]
    expected = [(f"{shard}.parquet", row) for shard, rows in enumerate(ROWS) for row in range(rows)]
    assert [*zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True)] == expected
    before = planned(recipe)
    write_shard(tmp_path / "in" / "1.parquet", table=words_table(7, seed=9))
    write_shard(tmp_path / "in" / "9.parquet", table=words_table(5, seed=10))
    assert made(recipe) == 2
    assert planned(recipe)["rows_trained"] == before["rows_trained"] - 9 + 7 + 5
    other = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", objective={"text": Text("upper")})
    assert made(other) == 5


def test_shards_that_were_done_before_a_kill_are_not_made_again(recipe):
    def kill(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexed(recipe, on_indexed=kill)
    assert not index_of(recipe).exists()
    assert made(recipe) == 2
    assert [*index_of(recipe).parent.rglob("*.parquet")] == [index_of(recipe)]
    assert pq.read_table(index_of(recipe)).num_rows == sum(ROWS)


def test_shards_that_cannot_be_read_are_tried_again(recipe, tmp_path):
    path = tmp_path / "in" / "1.parquet"
    data, footer = path.read_bytes(), int.from_bytes(path.read_bytes()[-8:-4], "little") + 8
    path.write_bytes(data[:4] + bytes(len(data) - 4 - footer) + data[-footer:])
    assert made(recipe) == 4
    written = index_of(recipe).read_bytes()
    assert made(recipe) == 1
    assert index_of(recipe).read_bytes() == written
    assert planned(recipe)["rows_trained"] == sum(ROWS) - 9


def test_a_damaged_index_is_refused_with_the_remedy(recipe):
    made(recipe)
    whole = index_of(recipe).read_bytes()
    for damaged in (b"not an index", whole[:-40]):
        index_of(recipe).write_bytes(damaged)
        with pytest.raises(StoreError, match=r"source\.parquet: damaged .*; remove this index, and run again"):
            indexed(recipe)
