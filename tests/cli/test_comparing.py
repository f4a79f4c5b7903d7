"""JSON, exit codes and refusals of `raysp evaluate` and `raysp diff`."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit
from tests.commands import write_recipe
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, digits_table, label_twice, write_shard


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Labels of six spoken digits, and those of the same rows by a pipeline that skips one of them."""
    folder = tmp_path_factory.mktemp("diff")
    label_twice(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Spoken digits: three right ones, one with a word too many, one that is no recording, one without a reference."""
    table = digits_table(6)
    texts, audio = table["text"].to_pylist(), table["audio"].to_pylist()
    texts[1], texts[5] = f"{texts[1]} more", None
    audio[4] = {"bytes": b"no audio at all", "path": None}
    columns = {"text": pa.array(texts, pa.string()), "audio": pa.array(audio, AUDIO)}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    folder = tmp_path_factory.mktemp("evaluate")
    write_shard(folder / "in" / "a.parquet", table=table)
    return folder / "in"


def evaluate(*arguments: object) -> kit.Ran:
    return kit.run(["evaluate", CHECKPOINT, *arguments])


def diff(made: Path, *arguments: object) -> kit.Ran:
    return kit.run(["diff", made / "A", made / "B", *arguments])


@pytest.mark.slow
def test_the_json_of_an_evaluation_has_everything(corpus):
    options = ("--by", "speaker_id", "--worst", 1, "--fail-above", "wer=0.1")
    ran = evaluate(corpus, "--text", "text", "--rows", 6, "--json", *options)
    assert (ran.code, ran.err) == (1, "")
    found = json.loads(ran.out)
    assert found.keys() == {
        "checkpoint", "checkpoint_digest", "source", "first_rows", "task", "column", "normalisation", "rows", "scores",
        "by", "classes", "worst", "intervals", "limits", "labels", "not_kept", "run", "exit_code",
    }  # fmt: skip
    assert found["scores"]["metrics"]["wer"].keys() == {"value", "low", "high"}
    assert found["rows"] == {
        "total": 6, "compared": 4, "without_reference": 1, "skipped": {}, "errors": {"unsupported_format": 1},
        "uncommitted": 0,
    }  # fmt: skip
    assert found["by"].keys() == {"seconds", "speaker_id"}
    assert found["limits"] == [{"metric": "wer", "limit": 0.1, "is_upper": True, "found": 0.2, "is_met": False}]
    [worst] = found["worst"]
    edit = {"kind": "delete", "reference": "more", "hypothesis": "", "start": 1}
    assert (worst["row"], worst["edits"]) == (1, [edit])


def test_the_json_of_a_comparison_has_everything(made):
    ran = diff(made, "--json", "--fail-above", "wer_change=0.1")
    found = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert found.keys() == {
        "a", "b", "shards", "rows", "seconds", "columns", "not_compared", "normalisation", "intervals", "limits",
        "exit_code",
    }  # fmt: skip
    assert found["rows"] == {
        "total": 6, "compared": 5, "only_a": {"filtered": 1}, "only_b": {}, "neither": 0, "absent": 0,
    }  # fmt: skip
    text, score = found["columns"]
    assert (text["column"], text["kind"], score["kind"]) == ("pred_text", "text", "number")
    assert found["limits"] == [{"metric": "wer_change", "limit": 0.1, "is_upper": True, "found": 0, "is_met": True}]


@pytest.mark.slow
def test_no_row_being_compared_ends_with_exit_code_3(corpus, made, tmp_path):
    table = pq.read_table(corpus / "a.parquet").slice(4, 2)
    ran = evaluate(write_shard(tmp_path / "none" / "a.parquet", table=table), "--text", "text", "--rows", 2)
    said = "raysp: no row was compared: 1 without a reference, 1 error (unsupported_format)"
    assert (ran.code, said in ran.err.splitlines()) == (3, True)
    nothing = raysp.Keep(max_seconds=0.01)
    raysp.run(a_pipeline(f"{made}/in/*.parquet", tmp_path / "out", keep=[nothing]), engine="here", progress=False)
    ran = kit.run(["diff", made / "A", tmp_path / "out"])
    assert (ran.code, ran.err.splitlines()[-1]) == (3, "raysp: no row was compared: none is ok in both")


def test_a_sink_may_be_given_by_its_pipeline_file_and_the_comparison_be_a_page(made, tmp_path):
    file = write_recipe(tmp_path, sink=str(made / "A"))
    ran = kit.run(["diff", file, made / "B", "--html", tmp_path / "diff.html"])
    assert (ran.code, f"page         {tmp_path}/diff.html\n" in ran.out) == (0, True)
    assert (tmp_path / "diff.html").read_text().startswith("<!doctype html>")
