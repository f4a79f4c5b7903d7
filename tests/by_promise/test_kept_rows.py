"""Rows and hours that each condition of each `Keep` leaves out: in a run, `raysp status` and `raysp report`."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import CHECKPOINT, damaged, digits_table, write_shard
from tests.kit import pipeline_file
from tests.pages import Page

DIGITS = digits_table(12)
LONG = "long, expected == 'x', " * 30
"""A value that a message cannot hold whole, and that reads like the message of another condition."""
pytestmark = pytest.mark.usefixtures("without_ray")

RULES = """
def wanted(rows):
    return [text != "FOUR" for text in rows.column("pred_text").to_pylist()]
"""


def made(tmp_path, **fields: object) -> raysp.Pipeline:
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])
    steps = [
        raysp.Keep(where=[("number", "!=", 0), ("note", "==", "x"), ("note", "!=", "x, expected == 'y'")]),
        raysp.Decode(),
        raysp.Keep(0.3, max_seconds=0.5),
        label,
        raysp.Keep(where="rules_of_kept_rows:wanted"),
        raysp.Keep(where=[("pred_score", ">", -10.0)]),
    ]
    sink = raysp.Parquet(f"{tmp_path}/out", **fields)
    return raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=steps, sink=sink)


@pytest.fixture
def shards(tmp_path, monkeypatch):
    (tmp_path / "rules_of_kept_rows.py").write_text(RULES)
    monkeypatch.syspath_prepend(tmp_path)
    notes = ["x", LONG, *["x"] * 9, None]
    table = DIGITS.append_column("number", pa.array([*range(11), 0])).append_column("note", pa.array(notes))
    table = damaged(table, 4)
    write_shard(tmp_path / "in" / "a.parquet", table=table.slice(0, 6))
    write_shard(tmp_path / "in" / "b.parquet", table=table.slice(6))


def expected(tmp_path) -> list[dict[str, object]]:
    """Count the messages of the label rows."""
    rows = pq.read_table(tmp_path / "out").to_pylist()
    messages = [row["error_message"] or "" for row in rows if row["error_type"] == "filtered"]
    steps = [
        ("steps.0", ["number != 0", "note == 'x'", "note != \"x, expected == 'y'\""], ["number is", "note is", "none"]),
        ("steps.2", ["min_seconds=0.3", "max_seconds=0.5"], ["shorter", "longer"]),
        ("steps.4", ["where=rules_of_kept_rows:wanted"], ["does not meet"]),
        ("steps.5", ["pred_score > -10.0"], ["pred_score is"]),
    ]
    found, num_rows = [], len(rows)
    for step, rules, words in steps:
        out = [sum(word in one for one in messages) for word in words]
        found.append({"step": step, "rows": num_rows, "out": dict(zip(rules, out, strict=True))})
        num_rows -= sum(out)
    assert sum(sum(one["out"].values()) for one in found) == len(messages)
    return found


def short(kept) -> list[dict[str, object]]:
    return [
        {"step": one["step"], "rows": one["rows"], "out": {out["rule"]: out["rows"] for out in one["left_out"]}}
        for one in kept
    ]


def test_a_run_its_status_and_its_report_count_the_rows_of_each_condition(shards, tmp_path, raysp_command):
    result = raysp.run(made(tmp_path))
    wanted = expected(tmp_path)
    assert [sum(one["out"].values()) > 0 for one in wanted] == [True, True, True, False]
    assert wanted[0]["out"] == {"number != 0": 2, "note == 'x'": 1, "note != \"x, expected == 'y'\"": 0}
    found = json.loads(raysp_command("status", tmp_path / "out", "--json").out)["kept"]
    assert short(found) == wanted
    assert found == json.loads(json.dumps([dataclasses.asdict(one) for one in result.kept]))
    rows = pq.read_table(tmp_path / "out").to_pylist()
    short_ones = [row["seconds"] for row in rows if "shorter" in (row["error_message"] or "")]
    assert found[1]["left_out"][0]["seconds"] == pytest.approx(sum(short_ones))
    assert found[1]["seconds"] == pytest.approx(sum(row["seconds"] or 0 for row in rows))
    assert found[-1]["kept"] == sum(row["error_type"] != "filtered" for row in rows)
    shown = " ".join(raysp_command("status", tmp_path / "out").out.split())
    assert "steps.0: 9 of 12 rows" in shown
    assert "left out 2 by number != 0 (not decoded), 1 by note == 'x' (not decoded)" in shown
    assert raysp_command("report", tmp_path / "out", "--out", tmp_path / "page.html").code == 0
    texts = Page((tmp_path / "page.html").read_text()).texts
    assert all(kept.sentence.partition(": ")[2] in texts for kept in result.kept)


def test_counts_stay_over_retries_left_out_rows_and_try_outs(shards, tmp_path, raysp_command):
    pipeline = made(tmp_path, rows="ok")
    before = raysp.run(pipeline).kept
    assert raysp.run(pipeline).kept == before
    raysp.retry(f"{tmp_path}/out", pipeline=pipeline)
    assert raysp.status(f"{tmp_path}/out").kept == before
    ran = raysp_command("run", pipeline_file(tmp_path / "label.py", pipeline), "--rows", "100", "--json")
    assert json.loads(ran.out)["kept"] == json.loads(json.dumps([dataclasses.asdict(one) for one in before]))
