"""Columns of label shards beside the shards of a source: conditions on labels, labels as texts, and what is refused."""

import os
from pathlib import Path

import pytest

import raysp
from raysp import CTC, Batching, Checkpoint, Finetune, PlanError, RunError, Schedule, Text, finetune, plan
from tests import kit
from tests.corpora import CHECKPOINT, a_pipeline, rows_table, wav, write_shard

NUM_ROWS = 12
AGAIN = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript("again")])]
NO_SIX = raysp.Keep(where=[("pred_text", "!=", "SIX")])


@pytest.fixture
def url(tmp_path) -> str:
    """Two shards, of which the second row is no recording."""
    return kit.corpus(tmp_path / "in", NUM_ROWS - 1, faults={1: "not_audio"}, shards=2).url


@pytest.fixture
def labelled(url, tmp_path) -> Path:
    """The sink of a run over both shards, without the row that cannot be decoded."""
    raysp.run(a_pipeline(url, raysp.Parquet(f"{tmp_path}/labels", rows="ok")), engine="here", progress=False)
    return tmp_path / "labels"


@pytest.mark.slow
def test_a_run_keeps_rows_by_their_labels_and_copies_them(url, labelled, tmp_path):
    source = raysp.Shards(url, labels=str(labelled), text="pred_text")
    sink = raysp.Parquet(f"{tmp_path}/again", keep=["pred_text", "speaker_id"])
    raysp.run(a_pipeline(source, sink, steps=[NO_SIX, *AGAIN]), engine="here", progress=False)
    rows, before = kit.rows(tmp_path / "again"), {row["id"]: row["pred_text"] for row in kit.rows(labelled)}
    assert "SIX" in before.values()
    assert {row["id"]: row["again_text"] for row in rows if row["status"] == "ok"} == {
        name: text for name, text in before.items() if text != "SIX"
    }
    assert [*rows[0]][:3] == ["id", "pred_text", "speaker_id"]
    assert [row["pred_text"] for row in rows] == [before.get(row["id"]) for row in rows]
    [left_out] = [row for row in rows if row["id"] not in before]
    assert (len(rows), left_out["status"], left_out["error_type"]) == (NUM_ROWS, "skipped", "filtered")
    assert "not labelled in source.labels" in left_out["error_message"]


@pytest.mark.slow
def test_a_training_learns_the_labels_of_confident_rows(url, labelled, tmp_path):
    recipe = Finetune(
        raysp.Shards(url, labels=str(labelled), text="pred_text"),
        steps=[NO_SIX, raysp.Decode()],
        objective=CTC(str(CHECKPOINT), text=Text("upper")),
        schedule=Schedule(steps=1),
        batching=Batching(seconds=6, micro_batches=1),
        sink=Checkpoint(f"{tmp_path}/model"),
        pool=raysp.Pool(1, cpus=1),
    )
    found = []
    assert finetune(recipe, engine="here", on_plan=found.append).is_done
    expected = [row["pred_text"] for row in kit.rows(labelled) if row["pred_text"] != "SIX"]
    letters = "".join(expected)
    assert found[0].corpus.counts == {one: letters.count(one) for one in sorted({*letters})}
    assert found[0].corpus.left_out == {"filtered": NUM_ROWS - len(expected)}


@pytest.mark.slow
def test_other_labels_are_other_rows(url, labelled, tmp_path):
    pipeline = a_pipeline(raysp.Shards(url, labels=str(labelled)), tmp_path / "again")
    raysp.run(pipeline, engine="here", progress=False)
    assert not plan(pipeline).todo
    shard = labelled / "part-1.parquet"
    source = raysp.Shards(f"{tmp_path}/in/part-1.parquet", labels=str(labelled))
    other = a_pipeline(source, raysp.Parquet(f"{tmp_path}/other", keep=["pred_text"]), steps=AGAIN)
    with pytest.raises(RunError, match=r"part-1\.parquet: this label shard changed since it was planned"):
        raysp.run(other, engine="here", progress=False, on_plan=lambda _: os.utime(shard, ns=(1, 1)))
    with pytest.raises(PlanError, match=r"its label shard .*part-1\.parquet changed since it was planned"):
        plan(pipeline)


def test_a_corpus_without_all_labels_and_labels_of_other_recordings_are_refused(url, labelled, tmp_path):
    pipeline = a_pipeline(raysp.Shards(url, labels=str(labelled)))
    with pytest.raises(PlanError, match=r"source\.labels: .*nowhere: not a sink of raysp"):
        plan(a_pipeline(raysp.Shards(url, labels=str(tmp_path / "nowhere"))))
    write_shard(tmp_path / "in" / "2.parquet", table=rows_table(2, audio=wav()))
    with pytest.raises(PlanError, match=r"no finished label shard for 1 of 3 shards, such as 2\.parquet: finish"):
        plan(pipeline)
    (tmp_path / "in" / "2.parquet").unlink()
    write_shard(tmp_path / "in" / "part-1.parquet", 4)
    message = r"labels was made from another .*in/part-1\.parquet \([\d,]+ bytes.*: label it again"
    with pytest.raises(PlanError, match=message):
        plan(pipeline)
