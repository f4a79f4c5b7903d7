import io
import re

import pyarrow as pa
import pytest

from raysp import StoreError
from raysp.corpus.shards import Shard
from raysp.sink import layout, plan_record, table_files
from tests.sink.sinks import make_shard


def test_recorded_shards_are_loaded_in_order(store):
    shards = [make_shard("b.parquet"), make_shard("ä/a.parquet"), Shard("z.parquet", "u", 2**40, "etag", 0, "ab", ())]
    plan_record.record(store, shards[:2])
    plan_record.record(store, shards[2:])
    plan_record.record(store, [])
    assert plan_record.load(store) == shards
    assert [entry.path for entry in store.list(layout.PLAN)] == [".raysp/plan/00000.arrow", ".raysp/plan/00001.arrow"]


def test_a_shard_is_never_cut_again(store):
    plan_record.record(store, [make_shard("a.parquet", (0, 10))])
    plan_record.record(store, [make_shard("a.parquet", (0, 5, 10)), make_shard("b.parquet")])
    assert plan_record.load(store) == [make_shard("a.parquet", (0, 10)), make_shard("b.parquet")]


def test_a_part_that_cannot_be_read_is_named(store):
    store.create(layout.plan_path(0), b"no arrow")
    with pytest.raises(StoreError, match=r"00000\.arrow: damaged \(.*\); restore this part of the recorded plan"):
        plan_record.load(store)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../a.parquet"}, "'..' cannot be part of a path"),
        ({"name": "a.txt"}, "ends in .parquet"),
        ({"url": None}, "a value is missing"),
        ({"pieces": None}, "a value is missing"),
        ({"pieces": [None]}, "a value is missing"),
        ({"pieces": [{"first": 0, "end": None}]}, "a value is missing"),
        ({"pieces": []}, "do not cover its 9 rows"),
        ({"pieces": [{"first": 4, "end": 9}, {"first": 0, "end": 4}]}, "do not cover its 9 rows"),
        ({"pieces": [{"first": 0, "end": 12}, {"first": 12, "end": 9}]}, "do not cover its 9 rows"),
        ({"pieces": [{"first": 0, "end": 9}, {"first": 9, "end": 9}]}, "do not cover its 9 rows"),
        ({"num_rows": -1, "pieces": []}, "do not cover its -1 rows"),
        ({"num_rows": 2**60, "pieces": [{"first": 0, "end": 2**60}]}, "has 1234 bytes, 1152921504606846976 rows"),
        ({"num_bytes": -1}, "has -1 bytes"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"input_id": "../../x"}, "has the input id '../../x', expected a hash"),
    ],
)
def test_values_that_no_run_records_are_named(store, values, message):
    plan_record.record(store, [make_shard("a.parquet", (0, 4, 9))])
    [table] = table_files.read(store, layout.plan_path(0), "")
    write_part(store, pa.Table.from_pylist([{**table.to_pylist()[0], **values}], plan_record.SCHEMA))
    with pytest.raises(StoreError, match=rf"00000\.arrow: .*{re.escape(message)}.*; restore this part"):
        plan_record.load(store)


def write_part(store, table: pa.Table) -> None:
    file = io.BytesIO()
    with table_files.Writer(file) as writer:
        writer.write(table)
    store.replace(layout.plan_path(0), file.getvalue())
