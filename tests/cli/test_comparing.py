"""JSON, exit codes and refusals of `raysp evaluate` and `raysp diff`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rich.cells import cell_len

import raysp
from tests import kit
from tests.commands import write_recipe
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, digits_table, label_twice, labelled, write_shard


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
def test_a_limit_that_is_not_met_ends_with_exit_code_1_and_a_sentence(corpus, made):
    ran = evaluate(corpus, "--text", "text", "--rows", 4, "--fail-above", "wer=0.05", "--fail-above", "cer=0.9")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "raysp: WER is 20.00%, expected at most 5.00%: not met")
    ran = diff(made, "--column", "pred_score", "--fail-above", "wer=0.1")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "raysp: WER is undefined, expected at most 10.00%: not met")


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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--text", "sentence"], "has no column 'sentence'"),
        (["--text", "sampling_rate"], "column 'sampling_rate' holds int32, expected strings"),
        (["--text", "text", "--by", "audio"], "column 'audio' holds struct"),
        (["--text", "text", "--fail-above", "wer"], "--fail-above wer: expected METRIC=SHARE, such as wer=0.2"),
        (["--text", "text", "--fail-above", "f1=0.1"], "fail_above: found 'f1', expected one of wer, cer"),
        (["--text", "text", "--label", "text"], "found text='text' and label='text'"),
        (["--text", "text", "--normalise", "upper"], "found the normalisation 'upper'"),
        (["--text", "text", "--rows", "0"], "Invalid value for '--rows'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(corpus, arguments, complaint):
    ran = evaluate(corpus, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--column", "pred"], "the output column 'pred' is in neither; both have pred_text, pred_score"),
        (["--by", "accent"], "neither has a column 'accent'"),
        (["--fail-above", "wer"], "--fail-above wer: expected METRIC=SHARE, such as wer=0.2"),
        (["--worst", "-1"], "Invalid value for '--worst'"),
    ],
)
def test_what_cannot_be_compared_is_refused(made, arguments, complaint):
    ran = diff(made, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err


def test_a_sink_may_be_given_by_its_pipeline_file_and_the_comparison_be_a_page(made, tmp_path):
    file = write_recipe(tmp_path, sink=str(made / "A"))
    ran = kit.run(["diff", file, made / "B", "--html", tmp_path / "diff.html"])
    assert (ran.code, f"page         {tmp_path}/diff.html\n" in ran.out) == (0, True)
    assert (tmp_path / "diff.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_several_shards_of_a_shell_are_one_corpus_and_only_the_worst_groups_are_shown(tmp_path):
    paths = [
        write_shard(tmp_path / "in" / f"{name}.parquet", table=digits_table(6, 6 * part))
        for part, name in enumerate("ab")
    ]
    ran = evaluate(*paths, "--text", "text", "--rows", 12, "--by", "id")
    assert len([line for line in ran.out.splitlines() if line.startswith("│")]) == 10
    assert "... and 2 more groups; --json lists all" in ran.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sink", "{tmp}/out"], "committed and staged labels are kept. To resume: raysp"),
        (["--rows", "2"], "no labels were kept"),
    ],
)
def test_a_stopped_evaluation_says_whether_it_can_be_resumed(corpus, tmp_path, options, said):
    class Stopping(MemoryFileSystem):
        """Files while which are read somebody presses Ctrl-C."""

        cachable = False

        def _open(self, *arguments, **keywords):
            raise KeyboardInterrupt

        cat_file = _open

    MemoryFileSystem().pipe_file("/stopping/a.parquet", (corpus / "a.parquet").read_bytes())
    fsspec.register_implementation("memory", Stopping, clobber=True)
    try:
        more = [one.format(tmp=tmp_path) for one in options]
        ran = evaluate("memory://stopping/a.parquet", "--text", "text", *more)
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
        MemoryFileSystem().rm("/stopping", recursive=True)
    assert ran.code == 130
    assert f"raysp: stopped; {said}" in ran.err


@pytest.mark.slow
def test_on_a_narrow_terminal_a_worst_row_has_few_lines_that_fit(tmp_path):
    texts = " ".join(f"word{number} same" for number in range(60)), " ".join(["same"] * 60)
    ids = ["a-very-long-id-of-a-recording" * number for number in (1, 2)]
    for side, name in enumerate("AB"):
        labelled(tmp_path, {"id": ids, "pred_text": [texts[side]] * 2}, name=name)
    variables = {**os.environ, "COLUMNS": "60", "FORCE_COLOR": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "raysp", "diff", tmp_path / "A", tmp_path / "B", "--column", "pred_text"]
    drawn = subprocess.run([*map(str, command)], env=variables, capture_output=True, text=True, check=True).stdout
    lines = re.sub(r"\x1b\[\d+m", "", drawn).partition("Worst rows, as [-A-]{+B+}\n")[2].splitlines()
    assert 2 <= len(lines) <= 2 * (2 + 1)
    assert max(map(cell_len, lines)) <= 60
    assert "60/120" in lines[0]
