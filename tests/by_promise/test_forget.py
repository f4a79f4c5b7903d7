"""`raysp forget`: labels of withdrawn recordings leave a sink, and never come back."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.by_promise.test_run_results import break_pages
from tests.corpora import CHECKPOINT, damaged, digits_table, write_shard
from tests.kit import interrupted, rows

DIGITS = digits_table(8)
IDS = DIGITS.column("id").to_pylist()
LABELS = ["seconds", "pred_text", "pred_score", "pred_words", "embedding"]
pytestmark = pytest.mark.usefixtures("without_ray")


def made(tmp_path, **fields: object) -> raysp.Pipeline:
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    sink = raysp.Parquet(f"{tmp_path}/out", keep=["speaker_id", "text"], **fields)
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=outputs)]
    return raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet", text="text"), steps=steps, sink=sink)


@pytest.fixture
def sink(tmp_path):
    """Write two label shards of four rows, one with an error row, and return their folder."""
    table = damaged(DIGITS, 5)
    write_shard(tmp_path / "in" / "a.parquet", table=table.slice(0, 4))
    write_shard(tmp_path / "in" / "b.parquet", table=table.slice(4))
    raysp.run(made(tmp_path))
    return tmp_path / "out"


def is_withdrawn(row: dict[str, object], source: dict[str, object]) -> bool:
    """Return whether a row has its identity and its kept columns alone."""
    kept = all(row[name] == source[name] for name in ("id", "row", "speaker_id", "text"))
    reason = (row["status"], row["error_type"]) == ("skipped", "withdrawn")
    return kept and reason and all(row[name] is None for name in LABELS)


def test_the_labels_of_the_ids_go_all_other_rows_stay_and_unknown_ids_are_refused(sink, raysp_command):
    before = rows(sink)
    ran = raysp_command("forget", sink, IDS[0], "nobody")
    assert ran.code == 2
    assert ran.err.startswith(f"raysp: {sink}: no row has the id 'nobody'; give ids as in the column `id`")
    assert raysp_command("forget", sink.parent / "in", "x").code == 2
    with pytest.raises(raysp.PlanError, match="found no id to forget"):
        raysp.forget(str(sink), [])
    assert rows(sink) == before
    assert not (sink / ".raysp" / "forgotten.json").exists()
    untouched = (sink / "a.parquet").stat().st_mtime_ns
    ran = raysp_command("forget", sink, IDS[4], IDS[5])
    assert (ran.code, ran.err) == (0, "")
    assert "withdrawn 2 rows labels 1 removed, in 1 label shard" in " ".join(ran.out.split())
    after = rows(sink)
    assert [row for row in after if row["id"] not in IDS[4:6]] == [row for row in before if row["id"] not in IDS[4:6]]
    assert all(is_withdrawn(after[place], before[place]) for place in (4, 5))
    assert (sink / "a.parquet").stat().st_mtime_ns == untouched
    assert pq.read_schema(sink / "b.parquet").equals(pq.read_schema(sink / "a.parquet"))
    assert json.loads(raysp_command("forget", sink, IDS[0], "--json").out)["labels"] == 1


def test_every_verb_counts_them_and_none_labels_them_again(sink, tmp_path, raysp_command):
    pipeline, before = made(tmp_path), rows(sink)
    raysp_command("report", sink)
    raysp.forget(str(sink), [IDS[0], IDS[5]])
    assert not (sink / ".raysp" / "report.html").exists()
    after = rows(sink)
    found = raysp.status(str(sink))
    assert (found.ok, found.skipped, found.error, found.errors_by_type) == (6, 2, 0, {"withdrawn": 2})
    assert (found.word_errors.rows, found.word_errors.skipped) == (6, 2)
    assert raysp.verify(str(sink), sample=8, pipeline=pipeline).differences == ()
    assert raysp.retry(str(sink), pipeline=pipeline).rows == 0
    assert raysp.run(pipeline).rows == 0
    assert rows(sink) == after
    again = raysp.forget(str(sink), [IDS[0]])
    assert (again.rows, again.already, again.labels, again.shards_replaced) == (1, 1, 0, ())
    assert again.facts["withdrawn"] == "1 row, 1 of them before"
    assert raysp_command("report", sink).code == 0
    raysp_command("export", sink, tmp_path / "made", "--to", "jsonl")
    exported = "".join(file.read_text() for file in (tmp_path / "made").rglob("*.jsonl"))
    assert (IDS[1] in exported, IDS[0] in exported) == (True, False)
    assert raysp.retry(str(sink), shards=["*.parquet"], trust=True).rows == 8  # labelled again, they have no labels
    assert is_withdrawn(rows(sink)[0], before[0])
    assert [row["status"] for row in rows(sink)].count("ok") == 6


def test_left_out_rows_are_withdrawn_too(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=damaged(DIGITS.slice(0, 4), 1))
    pipeline = made(tmp_path, rows="ok")
    raysp.run(pipeline)
    found = raysp.forget(f"{tmp_path}/out", IDS[:2], pipeline=pipeline)
    assert (found.rows, found.labels) == (2, 1)
    assert pq.read_table(tmp_path / "out" / "a.parquet").column("id").to_pylist() == IDS[2:4]
    [rest] = (tmp_path / "out" / ".raysp" / "errors").iterdir()
    left_out = pa.ipc.open_stream(rest.read_bytes()).read_all().to_pylist()
    assert [(row["id"], row["error_type"]) for row in left_out] == [(one, "withdrawn") for one in IDS[:2]]
    assert raysp.retry(f"{tmp_path}/out", pipeline=pipeline).rows == 0
    assert raysp.verify(f"{tmp_path}/out", pipeline=pipeline).differences == ()


def test_staged_labels_go_and_the_next_run_leaves_the_row_without_one(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=DIGITS.slice(0, 4))
    table = pa.concat_tables([damaged(DIGITS, 5).slice(4), DIGITS.slice(0, 1)])
    write_shard(tmp_path / "in" / "b.parquet", table=table)
    pipeline, stage = made(tmp_path), tmp_path / "out" / ".raysp" / "stage"
    interrupted(pipeline, num_rows=9)
    assert [file for file in stage.rglob("*") if file.is_file()]
    found = raysp.forget(f"{tmp_path}/out", [IDS[0], IDS[5]], pipeline=pipeline)
    assert (found.rows, found.repeated, len(found.shards_replaced)) == (3, {IDS[0]: 2}, 1)
    assert found.pieces_removed == 1
    assert not [file for file in stage.rglob("*") if file.is_file()]
    assert raysp.run(pipeline).shards_committed == 2
    withdrawn = [row["id"] for row in rows(tmp_path / "out") if row["error_type"] == "withdrawn"]
    assert sorted(withdrawn) == sorted([IDS[0], IDS[0], IDS[5]])
    assert raysp.status(f"{tmp_path}/out").errors_by_type == {"withdrawn": 3}
    assert raysp.verify(f"{tmp_path}/out", pipeline=pipeline).differences == ()


def test_a_row_of_an_uncommitted_shard_whose_ids_cannot_be_read_is_withdrawn_by_the_next_run(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=DIGITS.slice(0, 4))
    good = write_shard(tmp_path / "in" / "b.parquet", table=DIGITS.slice(0, 8)).read_bytes()
    break_pages(tmp_path / "in" / "b.parquet")
    pipeline = made(tmp_path)
    assert raysp.run(pipeline).exit_code == 3
    found = raysp.forget(f"{tmp_path}/out", [IDS[1]], pipeline=pipeline)
    assert (found.rows, [*found.not_searched]) == (1, ["b.parquet"])
    with pytest.raises(raysp.PlanError, match=r"no row has the id .*; 1 shard could not be searched, b.parquet: "):
        raysp.forget(f"{tmp_path}/out", [IDS[7]], pipeline=pipeline)
    (tmp_path / "in" / "b.parquet").write_bytes(good)
    assert raysp.retry(f"{tmp_path}/out", shards=["b.parquet"], trust=True).shards_committed == 1
    assert [row["id"] for row in rows(tmp_path / "out") if row["error_type"] == "withdrawn"] == [IDS[1]] * 2
