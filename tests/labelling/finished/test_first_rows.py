"""Looking into finished label shards: their first rows."""

import pyarrow as pa
import pytest

from raysp import PlanError
from raysp.labelling.finished.first_rows import first_rows
from tests.corpora import write_shard


class TestFirstRows:
    def test_rows_come_from_as_many_label_shards_as_it_takes(self, tmp_path):
        for name, rows in (("b", [3, 4]), ("a", [1, 2]), ("c/d", [5, 6])):
            write_shard(tmp_path / f"{name}.parquet", table=pa.table({"row": rows}))
        for count in range(1, 9):
            assert first_rows(str(tmp_path), count).column("row").to_pylist() == [1, 2, 3, 4, 5, 6][:count]

    def test_files_under_raysp_are_not_label_shards(self, tmp_path):
        write_shard(tmp_path / ".raysp" / "errors" / "a.parquet", table=pa.table({"row": [9]}))
        write_shard(tmp_path / "a.parquet", table=pa.table({"row": [1]}))
        (tmp_path / "notes.txt").write_text("")
        assert first_rows(str(tmp_path), 5).column("row").to_pylist() == [1]

    def test_an_empty_label_shard_is_passed_over_and_a_column_of_nulls_fits_the_next(self, tmp_path):
        write_shard(tmp_path / "a.parquet", table=pa.table({"text": pa.array([], pa.string())}))
        write_shard(tmp_path / "b.parquet", table=pa.table({"text": pa.nulls(1)}))
        write_shard(tmp_path / "c.parquet", table=pa.table({"text": ["x"]}))
        assert first_rows(str(tmp_path), 5).column("text").to_pylist() == [None, "x"]

    def test_label_shards_without_a_row_give_their_columns(self, tmp_path):
        for name in "ab":
            write_shard(tmp_path / f"{name}.parquet", table=pa.table({"row": pa.array([], pa.int64())}))
        table = first_rows(str(tmp_path), 5)
        assert (table.column_names, table.num_rows) == (["row"], 0)

    def test_a_place_without_label_shards_is_refused(self, tmp_path):
        with pytest.raises(PlanError, match=r"not a sink of raysp: found neither .raysp/run.json"):
            first_rows(str(tmp_path), 5)
