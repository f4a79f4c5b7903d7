"""What reaches a terminal or another stream: no escapes, and nothing of it decides the exit code."""

import os
import subprocess
import sys

import pyarrow as pa
import pytest
from rich.console import Console

import raysp
from tests import kit
from tests.commands import write_recipe
from tests.corpora import CHECKPOINT, label_twice, rows_table, write_shard

HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J[bold]\r\nz"
ESCAPES = {"\x1b", "\x9b", "\x07", "\r"}


class TestTerminal:
    def test_escapes_in_the_name_of_a_shard_do_not_reach_the_terminal(self, recipe, tmp_path):
        (tmp_path / "in" / f"{HOSTILE}.parquet").write_text("nothing")
        for arguments in (("plan", recipe), ("plan", recipe, "--json"), ("run", recipe)):
            ran = kit.run(arguments)
            assert ran.code == (3 if "run" in arguments else 0)
            assert not ESCAPES & {*ran.out, *ran.err}
        [line] = [line for line in ran.err.splitlines() if "not committed: " in line]
        assert "[bold]" in line

    def test_ids_texts_and_names_of_columns_are_shown_as_they_are_but_harmless(self, recipe, tmp_path):
        table = rows_table(1, audio=kit.digits(1)[0]["audio"]).append_column("evil\x1b[2J", pa.array(["x"]))
        for name, value in {"id": HOSTILE, "text": "größer [red]ok"}.items():
            table = table.set_column(table.column_names.index(name), name, [[value]])
        write_shard(tmp_path / "in" / "a.parquet", table=table)
        ran = kit.run(["plan", recipe, "--set", "source.id=key"])
        assert (ran.code, "evil" in ran.err, ESCAPES & {*ran.err}) == (2, True, set())
        ran = kit.run(["run", recipe, "--rows", 1, "--set", 'sink.keep=["text"]'], COLUMNS="200")
        assert not ESCAPES & {*ran.out, *ran.err}
        assert "größer [red]ok" in ran.out


def test_a_progress_line_has_progress_and_speed(tmp_path, capsys):
    corpus = kit.corpus(tmp_path / "in", rows=4, faults=["not_audio", "not_audio"], shards=2)
    raysp.run(corpus.pipeline(tmp_path / "out", label={"batch_seconds": 5}), engine="here", progress=True)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("raysp: 100% · 2 errors · 6/6 rows · 0:0")
    for part in (" of audio · RTFx ", " · shards 2/2 · padding efficiency ", " · model waited "):
        assert part in line
    assert "ETA" not in line


@pytest.mark.slow
def test_an_error_of_the_display_changes_no_exit_code(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise TypeError("no format")

    label_twice(tmp_path)
    recipe = write_recipe(tmp_path, sink=f"{tmp_path}/new")
    commands: dict[tuple[object, ...], int] = {
        ("plan", recipe): 0,
        ("run", recipe, "--rows", "2"): 0,
        ("run", recipe): 0,
        ("retry", tmp_path / "A", "--trust"): 0,
        ("verify", tmp_path / "A", "--trust"): 0,
        ("gc", tmp_path / "A"): 0,
        ("status", tmp_path / "A", "--verbose"): 0,
        ("report", tmp_path / "A", "--out", tmp_path / "report.html"): 0,
        ("evaluate", CHECKPOINT, tmp_path / "in", "--text", "speaker_id", "--fail-above", "wer=0", "--rows", "2"): 1,
        ("diff", tmp_path / "A", tmp_path / "B"): 0,
        ("export", tmp_path / "A", tmp_path / "lines", "--to", "jsonl"): 0,
        ("inspect", CHECKPOINT): 0,
        ("models",): 0,
    }
    monkeypatch.setattr(Console, "print", broken)
    for command, code in commands.items():
        ran = kit.run(command)
        assert (ran.code, "cannot be shown" in ran.err) == (code, True), (command, ran.err)
    assert [path.name for path in (tmp_path / "new").glob("*.parquet")] == ["a.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"COLUMNS": "1", "FORCE_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-16"},
    ],
    ids=str,
)
def test_odd_terminals_and_encodings_change_no_exit_code(recipe, tmp_path, variables):
    place = tmp_path / "S\u00e1ti-\U0001f399"
    assert kit.run(["run", recipe, "--set", f"sink.url={place}"]).code == 0
    command = [sys.executable, "-m", "raysp", "status", str(place), "--verbose"]
    ran = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False)
    assert (ran.returncode, b"Error" in ran.stderr) == (0, False), ran.stderr
    assert b"checkpoint_digest" in ran.stdout.replace(b"\0", b"")


@pytest.mark.drivers
@pytest.mark.parametrize(("redirection", "code"), [(">&- 2>&- <&-", 0), ("--json >/dev/full", 1), (">/dev/full", 0)])
def test_a_run_labels_its_rows_whatever_its_streams_are(recipe, tmp_path, redirection, code):
    line = f"{sys.executable} -m raysp run {recipe} {redirection}"
    ran = subprocess.run(line, shell=True, check=False, capture_output=True, text=True)
    assert (ran.returncode, "stdout: the JSON object" in ran.stderr) == (code, bool(code))
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == ["a.parquet"]
    assert "Exception" not in ran.stderr
