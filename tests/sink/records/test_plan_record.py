import io
import re
from dataclasses import replace

import pyarrow as pa
import pytest

from raysp import StoreError
from raysp.corpus.shards import Shard
from raysp.sink import layout, plan_record, table_files
from tests.sink.sinks import make_shard


def test_recorded_shards_are_loaded_in_order_and_never_cut_again(store, monkeypatch):
    monkeypatch.setattr(plan_record, "BATCH_SHARDS", 3)
    shards = [replace(make_shard(f"ä/{place}.parquet", (0, 4, 9)), seconds=place / 3) for place in range(8)]
    shards += [make_shard("b.parquet"), Shard("z.parquet", "u", 2**40, "etag", 0, "ab", ())]
    plan_record.record(store, shards[:8])
    plan_record.record(store, [*shards[8:], make_shard("ä/0.parquet", (0, 5, 9))])
    plan_record.record(store, [])
    assert plan_record.load(store) == shards
    assert [entry.path for entry in store.list(layout.PLAN)] == [".raysp/plan/00000.arrow", ".raysp/plan/00001.arrow"]
    store.replace(layout.plan_path(0), b"no arrow")
    with pytest.raises(StoreError, match=r"00000\.arrow: damaged \(.*\); restore this part of the recorded plan"):
        plan_record.load(store)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "../a.parquet"}, "'..' cannot be part of a path"),
        ({"url": None}, "a value is missing"),
        ({"pieces": [{"first": 0, "end": None}]}, "a value is missing"),
        ({"pieces": []}, "do not cover its 9 rows"),
        ({"pieces": [{"first": 4, "end": 9}, {"first": 0, "end": 4}]}, "do not cover its 9 rows"),
        ({"pieces": [{"first": 0, "end": 12}, {"first": 12, "end": 9}]}, "do not cover its 9 rows"),
        ({"num_rows": -1, "pieces": []}, "do not cover its -1 rows"),
        ({"num_rows": 2**60, "pieces": [{"first": 0, "end": 2**60}]}, "has 1234 bytes, 1152921504606846976 rows"),
        ({"seconds": float("nan")}, "nan seconds"),
        ({"input_id": "../../x"}, "has the input id '../../x', expected a hash"),
    ],
)
def test_values_that_no_run_records_are_named(store, values, message):
    plan_record.record(store, [make_shard("a.parquet", (0, 4, 9))])
    [table] = table_files.read(store, layout.plan_path(0), "")
    file = io.BytesIO()
    with table_files.Writer(file) as writer:
        writer.write(pa.Table.from_pylist([{**table.to_pylist()[0], **values}], plan_record.SCHEMA))
    store.replace(layout.plan_path(0), file.getvalue())
    with pytest.raises(StoreError, match=rf"00000\.arrow: .*{re.escape(message)}.*; restore this part"):
        plan_record.load(store)
