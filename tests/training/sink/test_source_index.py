"""Index of a source in a sink: one Parquet file, of which only shards that changed are made again; rows of a corpus."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysp import Shards, StoreError
from raysp.corpus.shards import Piece, Shard
from raysp.sink.footer import Hashes
from raysp.storage.store import LocalStore
from raysp.training.sink.source_index import Indexed, ShardIndex, SourceIndex


def shard(name: str, rows: int, *edges: int, part: str = "") -> Shard:
    cut = [0, *edges, rows]
    pieces = tuple(Piece(first, end) for first, end in itertools.pairwise(cut) if rows)
    return Shard(f"{name}.parquet", f"in/{name}", 10, "1", rows, f"id-{name}", pieces, part=part)


def an_index(of: Shard) -> ShardIndex:
    reasons = ["filtered" if row % 3 == 1 else "empty_text" if row % 5 == 2 else "" for row in range(of.num_rows)]
    rows = [(row + 0.5, row, reason) for row, reason in enumerate(reasons)]
    return ShardIndex.of(of, rows, Hashes.zeros(of.num_rows), {"a": of.num_rows, "ß": 1}, "digest")


SHARDS = [shard("empty", 0), shard("a", 10, 4), shard("none", 0), shard("b", 5), shard("last", 0)]


class Sink:
    """The index in a sink, and the shards that were made."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / ".raysp" / "index" / "source.parquet"
        self.store = LocalStore(str(folder))
        self.made: list[str] = []

    def complete(
        self,
        shards: Sequence[Shard],
        key: str = "key",
        *,
        saves: bool = True,
        make: Callable[[Shard], Indexed] = an_index,
    ) -> list[tuple[Shard, Indexed]]:
        self.made = []

        def making(absent: Sequence[Shard]) -> Iterator[tuple[Shard, Indexed]]:
            for one in reversed(absent):
                indexed = make(one)
                self.made.append(one.name)
                yield one, indexed

        return SourceIndex(self.store, "source", Shards("in/*.parquet"), key, saves=saves).complete(shards, making)

    def parts(self) -> list[Path]:
        return [path for path in self.file.parent.rglob("*.parquet") if path != self.file]


@pytest.fixture
def sink(tmp_path) -> Sink:
    return Sink(tmp_path)


def values(indexed: list[tuple[Shard, Indexed]]) -> list[object]:
    return [(one.name, index.rows.to_pylist(), index.facts.counts, index.facts.targets) for one, index in indexed]


def test_an_index_comes_back_as_it_was_made_in_the_order_of_the_shards(sink):
    made = sink.complete(SHARDS)
    assert sink.made == ["b.parquet", "a.parquet"]
    found = sink.complete(SHARDS)
    assert sink.made == []
    assert values(found) == values(made)
    assert [one for one, _ in found] == SHARDS
    table = pq.read_table(sink.file)
    assert table.column_names == ["shard", "row", "seconds", "num_labels", "reason", "version", "facts"]
    assert table["shard"].to_pylist() == ["a.parquet"] * 10 + ["b.parquet"] * 5
    assert table["row"].to_pylist() == [*range(10), *range(5)]


def test_only_shards_that_changed_are_made_again_and_all_of_another_recipe(sink):
    sink.complete(SHARDS)
    changed = [replace(one, input_id="other") if one.name == "a.parquet" else one for one in SHARDS]
    sink.complete([*changed, shard("c", 3), shard("c", 3, part="0-3")])
    assert {*sink.made} == {"a.parquet", "c.parquet"}
    sink.complete(changed, "other key", saves=False)
    assert {*sink.made} == {"a.parquet", "b.parquet"}
    sink.complete(changed)
    assert sink.made == []


def test_shards_that_were_done_before_an_error_are_not_made_again(sink):
    shards = [shard(str(number), 3) for number in range(6)]

    def failing(one: Shard) -> Indexed:
        if one.name == "2.parquet":
            raise KeyboardInterrupt
        return an_index(one)

    with pytest.raises(KeyboardInterrupt):
        sink.complete(shards, make=failing)
    assert not sink.file.exists()
    with pytest.raises(KeyboardInterrupt):
        sink.complete(shards[:3], make=failing)
    assert len(sink.parts()) == 1
    found = sink.complete(shards)
    assert sink.made == ["2.parquet", "1.parquet", "0.parquet"]
    assert sink.parts() == []
    assert values(found) == [
        (one.name, *value[1:]) for one, value in zip(shards, values(sink.complete(shards)), strict=True)
    ]


def test_shards_that_cannot_be_read_are_tried_again(sink):
    def unreadable(one: Shard) -> Indexed:
        return "damaged" if one.name == "a.parquet" else an_index(one)

    found = {one.name: index for one, index in sink.complete(SHARDS, make=unreadable)}
    assert found["a.parquet"] == "damaged"
    written = sink.file.read_bytes()
    sink.complete(SHARDS, make=unreadable)
    assert sink.made == ["a.parquet"]
    assert sink.file.read_bytes() == written


@pytest.mark.parametrize("damage", [lambda data: b"not an index", lambda data: data[:-40]])
def test_a_damaged_index_is_refused_with_the_remedy(sink, damage):
    sink.complete(SHARDS)
    sink.file.write_bytes(damage(sink.file.read_bytes()))
    with pytest.raises(StoreError, match=r"source\.parquet: damaged .*; remove this index, and run again"):
        sink.complete(SHARDS)
