"""What other readers see of a sink: finished label shards and nothing else, while a run is half done as well."""

import warnings
from pathlib import Path

import duckdb
import pandas
import pyarrow as pa
import pyarrow.dataset
import pytest

import raysp
from tests import kit
from tests.corpora import AUDIO, a_pipeline, rows_table, write_shard

DONE = ("a.parquet", "deep/er.parquet/b.parquet")
ROWS = 5


@pytest.fixture
def sink(tmp_path: Path) -> Path:
    """A sink of two label shards without their error rows, and leftovers of a kill."""
    write_shard(tmp_path / "in" / DONE[0], table=with_an_error(4))
    write_shard(tmp_path / "in" / DONE[1], 2)
    pipeline = a_pipeline(f"{tmp_path}/in/**/*.parquet", raysp.Parquet(f"{tmp_path}/labels", rows="ok"))
    raysp.run(pipeline, engine="here", progress=False)
    hidden = tmp_path / "labels" / ".raysp"
    assert len([*(hidden / "errors").rglob("*.arrow")]) == 1
    write_shard(tmp_path / "in" / "x.parquet" / "half.parquet", table=with_an_error(3))
    kit.interrupted(pipeline)
    (hidden / "tmp").mkdir(exist_ok=True)
    (hidden / "tmp" / "scratch").write_bytes((tmp_path / "labels" / DONE[0]).read_bytes()[:-10])
    assert [path for path in (hidden / "stage").rglob("*") if path.is_file()]
    return tmp_path / "labels"


def with_an_error(num_rows: int) -> pa.Table:
    audio = rows_table(num_rows).column("audio").to_pylist()
    audio[-1] = {"bytes": b"no audio", "path": None}
    return rows_table(num_rows).set_column(1, "audio", pa.array(audio, AUDIO))


@pytest.mark.lengthy
def test_readers_see_the_rows_of_finished_label_shards_alone(sink, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # imports warn of things that are not ours
        import datasets

        datasets.disable_progress_bars()
        assert len(pandas.read_parquet(sink)) == ROWS
        found = datasets.load_dataset("parquet", data_dir=str(sink), cache_dir=str(tmp_path / "cache"), split="train")
    assert sorted(found["row"]) == [0, 0, 1, 1, 2]
    found = pa.dataset.dataset(sink, format="parquet")
    assert (found.count_rows(), len(found.files)) == (ROWS, len(DONE))
    query = f"select count(*), count(distinct filename) from read_parquet('{sink}/**/*.parquet', filename=true)"
    assert duckdb.sql(query).fetchall() == [(ROWS, len(DONE))]  # its globs look into hidden folders
