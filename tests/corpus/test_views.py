"""Types of columns that no Parquet file holds; those that become others are in by_promise/test_verify_ids.py."""

import pyarrow as pa
import pytest

import raysp
from raysp import PlanError, plan
from tests.corpora import a_pipeline, rows_table

LISTS_OF_RUNS = pa.list_(pa.struct([("a", pa.run_end_encoded(pa.int32(), pa.string()))]))


@pytest.mark.parametrize(
    "kind",
    [pa.month_day_nano_interval(), pa.dense_union([pa.field("a", pa.int8())]), pa.list_(pa.struct([])), LISTS_OF_RUNS],
    ids=str,
)
def test_a_type_that_parquet_does_not_hold_is_refused_by_the_plan(tmp_path, kind):
    (tmp_path / "in").mkdir()
    table = rows_table(3).append_column("kept", pa.nulls(3, kind))
    with pa.ipc.new_file(tmp_path / "in" / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    for id_, keep in (("kept", []), ("id", ["kept"])):
        message = r"a\.arrow: column 'kept' is .*, which no Parquet file holds; expected another"
        with pytest.raises(PlanError, match=message):
            plan(a_pipeline(raysp.Shards(f"{tmp_path}/in", id=id_), raysp.Parquet(f"{tmp_path}/out", keep=keep)))
