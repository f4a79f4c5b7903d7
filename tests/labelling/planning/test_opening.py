"""The plan of a run: from corpus and sink to what there is to do."""

import json
from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from tests import kit
from tests.corpora import a_pipeline, write_shard
from tests.trainings import Sink
from tests.user_specs import Counted, Louder


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pipeline(tmp_path) -> raysp.Pipeline:
    write_shard(tmp_path / "in" / "a.parquet", 30)
    write_shard(tmp_path / "in" / "b.parquet", 5)
    return a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")


def test_it_counts_shards_rows_and_pieces_and_writes_nothing(tmp_path, pipeline):
    before = files_below(tmp_path / "in")
    plan = raysp.plan(pipeline)
    assert (len(plan.corpus.shards), plan.num_rows, plan.rows_todo, plan.pieces_todo) == (2, 35, 35, 2)
    assert plan.done == frozenset()
    assert len(plan.corpus.fresh) == 2
    assert files_below(tmp_path / "in") == before
    assert not (tmp_path / "out").exists()


def test_a_shard_that_cannot_be_read_is_listed_and_the_others_are_planned(tmp_path, pipeline):
    (tmp_path / "in" / "b.parquet").write_bytes(b"not parquet at all")
    plan = raysp.plan(pipeline)
    assert list(plan.corpus.unreadable) == ["b.parquet"]
    assert "ends in b' all'" in plan.corpus.unreadable["b.parquet"]
    assert [todo.shard.name for todo in plan.todo] == ["a.parquet"]


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        ({"audio": "sound"}, {}, "a.parquet: has no column 'sound', expected one; its columns are id, audio, text"),
        (
            {"audio": "text"},
            {},
            "a.parquet: column 'text' is string. Of paths, set source.audio_root to the folder",
        ),
        ({}, {"keep": [raysp.Keep(where=[("lang", "==", "en")])]}, "has no column 'lang'"),
        (
            {},
            {"keep": [raysp.Keep(where=[("language", "==", 3)])]},
            "a.parquet: Keep cannot compare 'language' == 3, a column of string: expected a text in quotes$",
        ),
        (
            {},
            {"keep": [Counted(), raysp.Keep(where=[("words", "==", "one")])]},
            "a.parquet: Keep cannot compare 'words' == 'one', a column of int32: expected a number without quotes$",
        ),
        ({}, {"keep": [Louder()]}, r"steps\[1\] Louder: found a step that .* cannot run: it has no op"),
    ],
)
def test_a_column_or_a_step_that_does_not_fit_is_refused_with_its_place(tmp_path, pipeline, source, fields, message):
    with pytest.raises(PlanError, match=message):
        raysp.plan(a_pipeline(raysp.Shards(pipeline.source.url, **source), tmp_path / "out", **fields))


def test_the_sink_of_a_training_is_refused_and_stays_as_it_is(tmp_path, pipeline):
    Sink(tmp_path / "out").train(range(1, 3))
    before = files_below(tmp_path / "out")
    for start in (raysp.plan, raysp.run):
        with pytest.raises(PlanError, match="out: the sink of a training; choose another folder for the labels"):
            start(pipeline)
    assert files_below(tmp_path / "out") == before


def test_a_sink_is_continued_after_changes_that_change_no_label_and_others_are_refused(tmp_path, pipeline):
    kit.interrupted(pipeline)
    for change in ("steps.1.pool.actors=[1,9]", "steps.1.batch_seconds=5", "sink.compression=gzip"):
        ran = kit.planned(pipeline, tmp_path, change)
        assert (ran.code, json.loads(ran.out)["fingerprint"]) == (0, raysp.plan(pipeline).fingerprint), ran.err
    for change, difference in (
        ("steps.1.overlap_seconds=2", "`steps.1.overlap_seconds` was 5.0, now 2.0"),
        ('sink.keep=["language"]', "same labels in other columns or rows: `sink.keep` was [], now ['language']"),
    ):
        ran = kit.planned(pipeline, tmp_path, change)
        assert (ran.code, difference in ran.err) == (2, True), ran.err
