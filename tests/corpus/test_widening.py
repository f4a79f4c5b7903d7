"""Columns that labels carry, of types that differ over shards: the common type, and values that it does not hold."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests import corpora
from tests.corpora import rows_table

WIDER = [
    (pa.int32(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint32(), pa.int32(), pa.int64()),
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.int32(), pa.float32(), pa.float64()),
    (pa.null(), pa.list_(pa.int8()), pa.list_(pa.int8())),
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.binary(4), pa.binary(), pa.binary()),
    (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
    (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string()), pa.string()),
    (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
    (pa.date32(), pa.date64(), pa.date32()),  # of date64, as Parquet stores it
    (pa.decimal128(5, 2), pa.decimal128(6, 1), pa.decimal128(7, 2)),
    (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
    (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
    (pa.list_(pa.float32(), 2), pa.list_(pa.float32(), 3), pa.list_(pa.float32())),
    (pa.list_(pa.field("item", pa.int8(), nullable=False)), pa.list_(pa.int8()), pa.list_(pa.int8())),
    (pa.struct([("a", pa.null())]), pa.struct([("a", pa.string())]), pa.struct([("a", pa.string())])),
    (pa.uuid(), pa.binary(16), pa.binary(16)),
]


def write(path: Path, kinds: list[pa.DataType], num_rows: int = 2) -> None:
    """Write an Arrow shard with a column of nulls of each type."""
    table = rows_table(num_rows, prefix=path.stem)
    for number, kind in enumerate(kinds):
        table = table.append_column(f"c{number}", pa.nulls(num_rows, kind))
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def test_the_common_type_holds_both_in_either_order_and_both_are_carried_in_it(tmp_path):
    pairs = [(one, other) for one, other, _ in WIDER] + [(other, one) for one, other, _ in WIDER]
    first, second = ([*kinds] for kinds in zip(*pairs, strict=True))
    write(tmp_path / "in" / "a.arrow", first)
    write(tmp_path / "in" / "b.arrow", second)
    write(tmp_path / "in" / "c.arrow", second, num_rows=0)
    names = [f"c{number}" for number in range(len(pairs))]
    raysp.run(corpora.reading(f"{tmp_path}/in", tmp_path / "out", *names), engine="here", progress=False)
    for shard in "abc":
        found = pq.read_schema(tmp_path / "out" / f"{shard}.parquet")
        wrong = [
            (one, other, found.field(f"c{n}").type)
            for n, (one, other, kind) in enumerate([*WIDER, *WIDER])
            if found.field(f"c{n}").type != kind
        ]
        assert wrong == [], shard


APART = [
    (pa.int64(), pa.float64()),
    (pa.uint64(), pa.int8()),
    (pa.timestamp("us"), pa.timestamp("us", "UTC")),
    (pa.timestamp("s"), pa.timestamp("ns")),
    (pa.string(), pa.binary()),
    (pa.list_(pa.int64()), pa.int64()),
    (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())])),
]


def test_types_whose_values_no_type_holds_are_refused(tmp_path):
    for number, (one, other) in enumerate([*APART, APART[0][::-1]]):
        for name, kind in zip("ab", (one, other), strict=True):
            write(tmp_path / f"{number}" / f"{name}.arrow", [kind])
        with pytest.raises(PlanError, match="column 'c0'"):
            raysp.plan(corpora.reading(f"{tmp_path}/{number}", tmp_path / "out", "c0"))


def test_values_of_json_become_text_as_within_a_shard(tmp_path):
    columns = {"a": (1, "x"), "b": (1, 0.5), "c": (True, 1), "d": (0.5, "x"), "e": (2.0, "x"), "f": (True, "x")}
    for place, name in enumerate(("1.jsonl", "2.jsonl")):
        row = {"audio_filepath": "a.wav", **{key: values[place] for key, values in columns.items()}}
        (tmp_path / name).write_text(json.dumps(row) + "\n" + json.dumps({"audio_filepath": "a.wav"}) + "\n")
    (tmp_path / "a.wav").write_bytes(corpora.wav(1600))
    first, empty, second, _ = corpora.read(raysp.Shards([f"{tmp_path}/1.jsonl", f"{tmp_path}/2.jsonl"]), *columns)
    assert {name: first[name] for name in columns} == {
        "a": "1",
        "b": 1.0,
        "c": "true",
        "d": "0.5",
        "e": "2",
        "f": "true",
    }
    assert {name: second[name] for name in columns} == {"a": "x", "b": 0.5, "c": "1", "d": "x", "e": "x", "f": "x"}
    assert {empty[name] for name in columns} == {None}


def test_an_integer_that_no_float_holds_is_carried_as_its_digits(tmp_path):
    for name, value in (("1", 2**53 + 1), ("2", 0.5)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "n": value}) + "\n")
    (tmp_path / "a.wav").write_bytes(corpora.wav(1600))
    found = corpora.read(raysp.Shards([f"{tmp_path}/1.jsonl", f"{tmp_path}/2.jsonl"]), "n")
    assert [row["n"] for row in found] == ["9007199254740993", "0.5"]
