"""Columns of label shards beside the shards of a source: conditions on labels, labels as texts, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import CTC, Batching, Checkpoint, Finetune, PlanError, RunError, Schedule, Text, finetune, plan
from tests.corpora import CHECKPOINT, DEMO, a_pipeline, rows_table, wav, write_shard

ROWS = 6
BROKEN = {1}
"""Rows of the first shard that cannot be decoded."""


def corpus(folder: Path) -> str:
    """Write two shards of spoken digits; the second row of the first is no recording."""
    digits = pq.read_table(next((DEMO / "audio").glob("*.parquet"))).select(["id", "audio", "text"])
    for number in range(2):
        table = digits.slice(number * ROWS, ROWS)
        if not number:
            broken = pa.array([{"bytes": b"broken", "path": None}], table.schema.field("audio").type)
            audio = pa.chunked_array([*table.column("audio").slice(0, 1).chunks, broken, *_rest(table)])
            table = table.set_column(1, "audio", audio)
        write_shard(folder / f"{number}.parquet", table=table, row_group_size=4)
    return f"{folder}/*.parquet"


def _rest(table: pa.Table) -> list[pa.Array]:
    return table.column("audio").slice(2).chunks


@pytest.fixture
def url(tmp_path) -> str:
    return corpus(tmp_path / "in")


@pytest.fixture
def labelled(url, tmp_path) -> Path:
    """The sink of a run over both shards, without the row that cannot be decoded."""
    sink = raysp.Parquet(str(tmp_path / "labels"), rows="ok")
    raysp.run(a_pipeline(url, sink), engine="here", progress=False)
    return tmp_path / "labels"


def texts(sink: Path) -> dict[str, str | None]:
    table = pa.concat_tables([pq.read_table(path) for path in sorted(sink.glob("*.parquet"))])
    rows = table.select(["id", "status", "pred_text"]).to_pylist()
    return {row["id"]: row["pred_text"] for row in rows if row["status"] == "ok"}


@pytest.mark.slow
def test_columns_of_label_shards_are_read_row_for_row(url, labelled, tmp_path):
    sink = raysp.Parquet(str(tmp_path / "again"), keep=["pred_text", "text"])
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript("again")])]
    pipeline = a_pipeline(raysp.Shards(url, labels=str(labelled)), sink, steps=steps)
    raysp.run(pipeline, engine="here", progress=False)
    whole = pq.read_table(tmp_path / "again" / "0.parquet")
    assert whole.column_names[:3] == ["id", "pred_text", "text"]
    expected, source = texts(labelled), pq.read_table(tmp_path / "in" / "0.parquet")
    assert whole.column("id").to_pylist() == source.column("id").to_pylist()
    assert whole.column("text").to_pylist() == source.column("text").to_pylist()
    assert [row["pred_text"] for row in whole.to_pylist()] == [expected.get(row["id"]) for row in whole.to_pylist()]


@pytest.mark.slow
def test_a_run_keeps_rows_by_their_labels_and_copies_them(url, labelled, tmp_path):
    source = raysp.Shards(url, labels=str(labelled), text="pred_text")
    confident = raysp.Keep(where=[("pred_text", "!=", "SIX")])
    steps = [confident, raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript("again")])]
    raysp.run(a_pipeline(source, tmp_path / "again", steps=steps), engine="here", progress=False)
    rows = pa.concat_tables(
        [pq.read_table(path) for path in sorted((tmp_path / "again").glob("*.parquet"))]
    ).to_pylist()
    before = texts(labelled)
    assert "SIX" in before.values()
    assert {row["id"]: row["again_text"] for row in rows if row["status"] == "ok"} == {
        name: text for name, text in before.items() if text != "SIX"
    }
    assert len(rows) == 2 * ROWS
    [left_out] = [row for row in rows if row["row"] in BROKEN and row["id"] not in before]
    assert (left_out["status"], left_out["error_type"]) == ("skipped", "filtered")
    assert "not labelled in source.labels" in left_out["error_message"]


def recipe(url: str, labels: Path, sink: Path, **fields: object) -> Finetune:
    return Finetune(
        raysp.Shards(url, labels=str(labels), text="pred_text"),
        steps=[raysp.Keep(where=[("pred_text", "!=", "SIX")]), raysp.Decode()],
        objective=CTC(str(CHECKPOINT), text=Text("upper")),
        schedule=Schedule(steps=2, learning_rate=1e-4),
        batching=Batching(seconds=6, micro_batches=2),
        sink=Checkpoint(str(sink)),
        pool=raysp.Pool(1, cpus=1),
        **fields,
    )


@pytest.mark.slow
def test_a_training_learns_the_labels_of_confident_rows(url, labelled, tmp_path):
    found = []
    assert finetune(recipe(url, labelled, tmp_path / "model"), engine="here", on_plan=found.append).is_done
    [prepared] = found
    expected = [text for text in texts(labelled).values() if text != "SIX"]
    assert prepared.index.num_rows == len(expected)
    assert prepared.corpus.counts == {
        one: sum(text.count(one) for text in expected) for one in sorted({*"".join(expected)})
    }
    assert prepared.corpus.left_out == {"filtered": 2 * ROWS - len(expected)}
    assert seconds_of(prepared) == seconds_of_labels(labelled)


def seconds_of(prepared) -> list[np.float32]:
    return sorted(prepared.index.seconds[prepared.index.seconds > 0])


def seconds_of_labels(sink: Path) -> list[np.float32]:
    """Return the durations of the rows that the recipe trains on, from their label shards."""
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(sink.glob("*.parquet"))]).to_pylist()
    return sorted(np.float32(row["seconds"]) for row in rows if row["status"] == "ok" and row["pred_text"] != "SIX")


@pytest.mark.slow
def test_other_labels_are_other_rows(url, labelled, tmp_path):
    pipeline = a_pipeline(raysp.Shards(url, labels=str(labelled)), tmp_path / "again")
    raysp.run(pipeline, engine="here", progress=False)
    assert not plan(pipeline).todo
    shard = labelled / "1.parquet"
    other = a_pipeline(
        raysp.Shards(f"{tmp_path}/in/1.parquet", labels=str(labelled)),
        raysp.Parquet(f"{tmp_path}/other", keep=["pred_text"]),
        steps=[raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript("again")])],
    )
    with pytest.raises(RunError, match=r"1\.parquet: this label shard changed since it was planned"):
        raysp.run(other, engine="here", progress=False, on_plan=lambda _: os.utime(shard, ns=(1, 1)))
    with pytest.raises(PlanError, match=r"its label shard .*1\.parquet changed since it was planned"):
        plan(pipeline)


def test_a_corpus_without_all_labels_is_refused(url, labelled, tmp_path):
    write_shard(tmp_path / "in" / "2.parquet", table=rows_table(2, audio=wav()))
    with pytest.raises(PlanError, match=r"no finished label shard for 1 of 3 shards, such as 2\.parquet: finish"):
        plan(a_pipeline(raysp.Shards(url, labels=str(labelled))))
    write_shard(tmp_path / "in" / "2.parquet", table=rows_table(3))
    with pytest.raises(PlanError, match=r"source\.labels: .*nowhere: not a sink of raysp"):
        plan(a_pipeline(raysp.Shards(url, labels=str(tmp_path / "nowhere"))))


def test_labels_of_other_recordings_are_refused(url, labelled, tmp_path):
    write_shard(tmp_path / "in" / "1.parquet", 4)
    with pytest.raises(
        PlanError, match=r"labels was made from another .*in/1\.parquet \([\d,]+ bytes.*: label it again"
    ):
        plan(a_pipeline(raysp.Shards(url, labels=str(labelled))))
