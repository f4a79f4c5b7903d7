"""A sink as one value: opened by its url, its store or its pipeline, and insisted upon in one wording."""

import pytest

from raysp import Parquet, PlanError
from raysp.sink import layout, plan_record, run_record
from raysp.sink.run_record import RunEntry
from raysp.sink.sinks import Sink
from raysp.storage.store import LocalStore
from tests.sink.sinks import FINGERPRINT, make_shard, stage_piece
from tests.sink.sinks import run as label

SHARD = make_shard()


@pytest.fixture
def sink(tmp_path) -> Sink:
    return Sink.open(str(tmp_path / "labels"))


def begin(sink: Sink) -> None:
    entry = RunEntry.now()
    run_record.begin(sink.store, run_record.RunRecord(entry.started, {}, FINGERPRINT, {}, {}, (entry,)))
    plan_record.record(sink.store, [SHARD])


def test_it_is_the_same_by_url_by_store_and_by_pipeline(sink, tmp_path):
    begin(sink)
    for same in (Sink.open(sink.store), Sink.open(LocalStore(tmp_path / "labels")), Sink.of(Parquet(sink.url))):
        assert (same.url, same.existing_record()) == (sink.url, sink.record())
        assert [shard.name for shard in same.shards()] == [SHARD.name]


def test_a_folder_without_a_sink_is_refused_with_the_missing_file_and_the_remedy(sink):
    sink.store.create("a.parquet", b"of something else")
    with pytest.raises(PlanError) as caught:
        sink.existing_record()
    assert str(caught.value) == (
        f"{sink.url}: not a sink of raysp: found neither .raysp/run.json nor .raysp/recipe.json; give the folder "
        "that a run wrote to, or the pipeline file"
    )


def test_label_shards_are_the_files_that_readers_take_for_them(sink):
    begin(sink)
    label(sink.store, SHARD)
    sink.store.create("notes.txt", b"")
    sink.store.create(f"{layout.TMP}left.parquet", b"")
    sink.store.create("by hand.parquet", b"")
    assert list(sink.label_shards()) == [SHARD.name, "by hand.parquet"]


def test_staged_results_of_the_pipeline_and_label_shards_are_results(sink):
    begin(sink)
    assert not sink.holds_results(FINGERPRINT)
    stage_piece(sink.store, SHARD, SHARD.pieces[0])
    assert sink.holds_results(FINGERPRINT)
    assert not sink.holds_results("0" * 16)
    label(sink.store, SHARD)
    assert sink.holds_results("0" * 16)
