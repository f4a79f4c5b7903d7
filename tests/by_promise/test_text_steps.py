"""Pipelines without `Decode` and `Label`: steps over columns of text rows, without audio, a model or a decoder."""

import random

import jiwer
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, SpecError
from tests import kit
from tests.kit import killed_at, pipeline_file, run, run_apart
from tests.soaked import soaked

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
COMPARED = raysp.Agreement("text", of=raysp.Column("pred_text"))
AGREED = raysp.Keep(where=[("agreement.wer", "<", 0.2)])


def write(folder, name, num_rows=40, first=0, **columns):
    """Write a shard of two texts a row, of which some differ and some are null."""
    draw = random.Random(first)
    texts = [" ".join(draw.choices(WORDS, k=6)) for _ in range(num_rows)]
    others = [text if row % 3 else text.replace("one", "won") for row, text in enumerate(texts)]
    texts[1], others[2] = None, None
    ids = [f"{name}-{row}" for row in range(num_rows)]
    table = pa.table({"id": ids, "text": texts, "pred_text": others, "seconds": [1.5] * num_rows, **columns})
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(table, folder / "in" / f"{name}.parquet", row_group_size=16)


def made(folder, *steps, out="out", source="in/*.parquet", keep=("text", "pred_text"), **fields):
    return raysp.Pipeline(
        raysp.Shards(f"{folder}/{source}"),
        steps=list(steps) or [COMPARED, AGREED],
        sink=raysp.Parquet(f"{folder}/{out}", keep=list(keep)),
        **fields,
    )


@pytest.fixture
def shards(tmp_path):
    for first, name in enumerate("abc"):
        write(tmp_path, name, first=first)
    return tmp_path


def test_texts_are_compared_as_jiwer_does_and_rows_that_differ_are_left_out(shards):
    result = raysp.run(made(shards), engine="here", progress=False)
    found = kit.rows(shards / "out")
    source = pq.read_table(shards / "in").to_pylist()
    assert [row["id"] for row in found] == [row["id"] for row in source]
    for row, before in zip(found, source, strict=True):
        text, other = before["pred_text"], before["text"]
        if text is None or other is None or jiwer.wer(other, text) >= 0.2:
            assert (row["status"], row["error_type"], row["agreement"]) == ("skipped", "filtered", None)
        else:
            assert row["agreement"]["wer"] == pytest.approx(jiwer.wer(other, text))
            assert row["agreement"]["cer"] == pytest.approx(jiwer.cer(other, text))
            assert (row["status"], row["seconds"]) == ("ok", 1.5)
    assert 0 < sum(row["status"] == "ok" for row in found) < len(found)
    assert (result.counts.rows, result.exit_code) == (120, 0)


def test_neither_its_plan_nor_its_run_imports_torch(shards):
    ran = run_apart(["run", pipeline_file(shards / "compare.py", made(shards))], PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in ran.err.splitlines() if line.startswith("import time")}
    assert (ran.code, {"raysp", "pyarrow"} <= imported, {"torch", "ray", "transformers"} & imported) == (0, True, set())


@pytest.mark.parametrize("phase", ["after_piece_staged", *soaked(["after_plan_written", "before_shard_committed"])])
def test_a_run_that_is_killed_goes_on_and_has_the_same_rows(shards, phase):
    file = pipeline_file(shards / "compare.py", made(shards))
    alone = pipeline_file(shards / "alone.py", made(shards, out="alone"))
    n = 2 if "piece" in phase or "shard" in phase else 1
    killed_at(phase, n, ["run", file])
    assert (run(["run", file]).code, run(["run", alone]).code) == (0, 0)
    assert kit.rows(shards / "out") == kit.rows(shards / "alone")
    assert not [*(shards / "out/.raysp/stage").rglob("*.parquet")]


def labelled(folder, rows=4):
    """Label a corpus with faults, and return its label rows."""
    corpus = kit.corpus(folder / "audio", rows, ("null", "too_short"))
    sink = raysp.Parquet(f"{folder}/labels", keep=["text"])
    raysp.run(corpus.pipeline(sink), engine="here", progress=False)
    return corpus, kit.rows(folder / "labels")


@pytest.mark.parametrize("beside", [False, True])
def test_rows_of_label_shards_keep_their_outcome_and_duration(tmp_path, beside):
    corpus, labels = labelled(tmp_path)
    shards = raysp.Shards(corpus.url, labels=f"{tmp_path}/labels") if beside else f"{tmp_path}/labels/*.parquet"
    source = shards if beside else raysp.Shards(shards)
    steps = [COMPARED, raysp.Keep(where=[("agreement.edits", "<=", 0)])]
    sink = raysp.Parquet(f"{tmp_path}/out", keep=["pred_text"])
    pipeline = raysp.Pipeline(source, steps=steps, sink=sink)
    raysp.run(pipeline, engine="here", progress=False)
    columns = ("id", "row", "seconds", "status", "error_type", "error_message", "pred_text")
    found = kit.rows(tmp_path / "out")
    assert [{name: row[name] for name in columns} for row in found] == [
        {name: row[name] for name in columns} for row in labels
    ]
    assert [row["agreement"] is None for row in found] == [row["status"] != "ok" for row in labels]
    assert {row["status"] for row in labels} == {"ok", "error", "skipped"}
    again = raysp.retry(f"{tmp_path}/out", pipeline=pipeline, engine="here", progress=False)
    assert (again.counts.errors, kit.rows(tmp_path / "out")) == ({"no_audio": 1}, found)


def test_verbs_work_on_its_sink(shards):
    file = pipeline_file(shards / "compare.py", made(shards))
    again = pipeline_file(shards / "again.py", made(shards, out="again"))
    planned = run(["plan", file, "--sample", "5"])
    assert (planned.code, "model        none: no audio is read" in planned.out) == (0, True)
    assert "--sample: without effect: no audio is read" in planned.err
    assert (run(["run", file]).code, run(["run", again]).code) == (0, 0)
    out, others = shards / "out", shards / "again"
    ok = sum(row["status"] == "ok" for row in kit.rows(out))
    status = run(["status", out])
    assert (status.code, f"{ok} ok" in status.out, "kept" in status.out) == (0, True, True)
    assert "4 rows labelled again, each alone: 4 equal" in run(["verify", file, "--sample", "4"]).out
    assert run(["report", out]).code == 0
    assert "0 labelled again" in run(["retry", file]).out
    assert f"{ok} of {ok} rows" in run(["diff", out, others]).out
    assert run(["merge", out, others, "--by", "agreement.wer", "--to", shards / "merged"]).code == 0
    assert len(kit.rows(shards / "merged")) == 120
    for form in ("csv", "jsonl"):
        assert run(["export", out, shards / form, "--to", form]).code == 0
    assert sum(len(file.read_text().splitlines()) for file in (shards / "jsonl").glob("*.jsonl")) == ok
    plain = ["--to", "dataset", "--set", "to.audio=false"]
    assert run(["export", out, shards / "dataset", *plain]).code == 0
    assert "checkpoint" not in (shards / "dataset" / "README.md").read_text()
    clips = run(["export", file, shards / "clips", "--to", "clips"])
    assert (clips.code, "its pipeline reads no audio" in clips.err) == (2, True)
    with pytest.raises(PlanError, match="reads no audio"):
        raysp.estimate(made(shards, out="new"))


def test_columns_that_are_missing_or_hold_no_strings_are_refused_by_the_plan(tmp_path):
    write(tmp_path, "a", n=list(range(40)))
    for column, why in (
        ("n", "column 'n' holds int64, expected strings"),
        ("pred", r"no column 'pred' \(did you mean"),
    ):
        with pytest.raises(PlanError, match=why):
            raysp.plan(made(tmp_path, raysp.Agreement("text", of=raysp.Column(column))))


LABEL = raysp.Label("checkpoint", outputs=[raysp.Transcript()])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([raysp.Agreement("text")], r"found none there. .*, or compare a column: of=Column\('pred_text'\)"),
        ([raysp.Decode(), LABEL, COMPARED], r"Agreement after Label .* put it into outputs"),
        ([raysp.Keep(min_seconds=1)], r"needs decoded audio: filter by a column, where="),
        ([raysp.Decode(), COMPARED], "expected one Decode and at least one Label; or neither"),
        ([], "expected one Decode and at least one Label; or neither"),
    ],
)
def test_steps_that_cannot_work_so_are_refused_when_the_pipeline_is_made(tmp_path, steps, message):
    with pytest.raises(SpecError, match=message):
        raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=steps, sink=raysp.Parquet(f"{tmp_path}/out"))
