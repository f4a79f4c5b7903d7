"""What other readers see of a sink: finished label shards and nothing else, while a run is half done as well."""

import glob
import warnings
from pathlib import Path

import duckdb
import pandas
import pyarrow as pa
import pyarrow.dataset
import pytest

from raysp.sink import layout, plan_record, run_record, stage
from raysp.sink.receipts import ReceiptLog
from raysp.storage.store import LocalStore
from tests.sink import sinks
from tests.sink.sinks import FINGERPRINT, INPUT_ID, make_shard

DONE = [make_shard("a.parquet"), make_shard("deep/er.parquet/b.parquet")]
HALF = make_shard("x.parquet/half.parquet")
ROWS = sum(shard.num_rows for shard in DONE)


@pytest.fixture(params=["finished", "half"])
def sink(request, tmp_path: Path) -> Path:
    store = LocalStore(tmp_path / "labels")
    begun = run_record.RunEntry.now()
    run_record.begin(store, begun, pipeline={}, fingerprint=FINGERPRINT, parts={}, file_parts={})
    plan_record.record(store, [*DONE, HALF])
    log = ReceiptLog(store, begun.run_id)
    for receipt in sinks.run(store, *DONE, rows="all"):
        log.add(receipt)
    log.flush()
    if request.param == "half":
        leave_half_done(store)
    return tmp_path / "labels"


def leave_half_done(store: LocalStore) -> None:
    """Add leftovers of a kill: staged blocks, a scratch file, a late block, kept error rows."""
    sinks.stage_piece(store, HALF, HALF.pieces[0])
    sinks.stage_piece(store, DONE[0], DONE[0].pieces[0])
    store.create(layout.errors_path(HALF.name, "ab", "cd", "ef"), b"rows")
    store.create(layout.done_path(HALF.name, INPUT_ID, FINGERPRINT), b"")
    scratch = store.scratch().__enter__()
    scratch.write_bytes(Path(store.url, DONE[0].name).read_bytes()[:-10])
    assert stage.staged(store, [HALF], FINGERPRINT)


def test_pandas(sink):
    with warnings.catch_warnings():
        warnings.filterwarnings("default", module="pandas")
        assert len(pandas.read_parquet(sink)) == ROWS


def test_pyarrow_dataset(sink):
    found = pa.dataset.dataset(sink, format="parquet")
    assert found.count_rows() == ROWS
    assert len(found.files) == len(DONE)


def test_duckdb_whose_globs_look_into_hidden_folders(sink):
    query = f"select count(*), count(distinct filename) from read_parquet('{sink}/**/*.parquet', filename=true)"
    assert duckdb.sql(query).fetchall() == [(ROWS, len(DONE))]


@pytest.mark.lengthy
def test_datasets(sink, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # its imports warn of things that are not ours
        import datasets

        datasets.disable_progress_bars()
        found = datasets.load_dataset("parquet", data_dir=str(sink), cache_dir=str(tmp_path / "cache"), split="train")
    assert found.num_rows == ROWS
    assert sorted(found["row"]) == sorted([*range(23), *range(23)])


def test_globs_that_look_into_hidden_folders_as_well(sink):
    names = {shard.name for shard in DONE}
    found = glob.glob("**/*.parquet", root_dir=sink, recursive=True, include_hidden=True)
    assert {name for name in found if (sink / name).is_file()} == names
    assert {str(path.relative_to(sink)) for path in sink.rglob("*.parquet") if path.is_file()} == names
    assert not list((sink / ".raysp").rglob("*.parquet"))
