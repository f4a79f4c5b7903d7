"""Errors of a display: in no verb do they change an exit code, or what the work leaves behind."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import raysp
from raysp.cli.entry import VERBS
from raysp.cluster.doctor import Finding
from raysp.labelling.engine.display import Display
from raysp.labelling.finished.first_rows import readable
from raysp.models import load_checkpoint
from tests.cli.test_finetune import RECIPE
from tests.cluster.submitting.fake_head import FakeHead
from tests.commands import write_recipe
from tests.corpora import CHECKPOINT, DEMO, a_pipeline, write_shard
from tests.here import run_without_ray
from tests.soaked import soaked

COMMANDS = {
    "plan": ["{folder}/recipe_for_the_cli.py"],
    "run": ["{folder}/recipe_for_the_cli.py", "--set", "sink.url={tmp}/run"],
    "label": ["{folder}/in/a.parquet", "--model", str(CHECKPOINT), "--out", "{tmp}/labelled"],
    "finetune": ["{tmp}/training.py", "--steps", "1"],
    "submit": ["{tmp}/remote/recipe_for_the_cli.py", "--address", "{head}", "--detach"],
    "jobs": ["--address", "{head}"],
    "stop": ["raysp-a-job", "--address", "{head}"],
    "retry": ["{folder}/A", "--trust"],
    "verify": ["{folder}/A", "--trust"],
    "gc": ["{folder}/A"],
    "status": ["{folder}/A", "--verbose"],
    "report": ["{folder}/A", "--out", "{tmp}/report.html"],
    "forget": ["{folder}/C", "yweweler_three_22"],
    "evaluate": [str(CHECKPOINT), "{folder}/in", "--text", "speaker_id", "--fail-above", "wer=0", "--rows", "2"],
    "diff": ["{folder}/A", "{folder}/B"],
    "merge": ["{folder}/A", "{folder}/B", "--by", "pred_score", "--to", "{tmp}/merged"],
    "export": ["{folder}/A", "{tmp}/lines", "--to", "jsonl"],
    "inspect": [str(CHECKPOINT)],
    "convert": ["a.nemo", "{tmp}/converted"],
    "models": [],
    "doctor": [],
}
"""Arguments of each verb."""
FAILING = {"evaluate", "doctor"}
"""Verbs whose work ends with exit code 1: a limit that is exceeded, a finding."""
MORE = {
    "a try-out": ["run", "{folder}/recipe_for_the_cli.py", "--rows", "2"],
    "a plan of a training": ["plan", "{tmp}/training.py"],
    "a status that is repeated": ["status", "{folder}/A", "--watch"],
    "a job that is followed": ["submit", "{tmp}/remote/recipe_for_the_cli.py", "--address", "{head}"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three labellings of four spoken digits; the last one forgets."""
    place = tmp_path_factory.mktemp("displays")
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 4)
    write_shard(place / "in" / "a.parquet", table=table)
    for sink in "ABC":
        raysp.run(
            a_pipeline(raysp.Shards(f"{place}/in/*.parquet", text="text"), raysp.Parquet(f"{place}/{sink}")),
            engine="here",
            progress=False,
        )
    write_recipe(place)
    return place


@pytest.fixture
def command(raysp_command, folder, tmp_path, tiny, words, monkeypatch):
    run_without_ray(monkeypatch)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_JOB_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "remote").mkdir()
    write_recipe(tmp_path / "remote", source="s3://bucket/in/*.parquet", sink="s3://bucket/labels")
    (tmp_path / "training.py").write_text(
        RECIPE.format(source=words, checkpoint=str(tiny), sink=str(tmp_path / "trained"), epochs=1)
    )
    summary = load_checkpoint(CHECKPOINT).summary
    monkeypatch.setattr("raysp.models.nemo.convert_nemo", lambda *_: summary)
    monkeypatch.setattr("raysp.cluster.doctor.examine", lambda: [Finding("ray", "none", False, "install it")])
    with FakeHead().serving() as head:
        head.logs = [[lambda: [head.end(job, "SUCCEEDED", 0) for job in head.jobs]]]
        head.add("raysp-a-job", metadata={"raysp_version": "0.1.0", "raysp_sink": "s3://bucket/others"})

        def run(*arguments):
            given = {"folder": folder, "tmp": tmp_path, "head": head.url}
            return raysp_command(*(one.format(**given) for one in arguments))

        yield run


def test_every_verb_has_a_command():
    assert set(COMMANDS) == {*VERBS}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [*([verb, *rest] for verb, rest in COMMANDS.items()), *MORE.values()], ids=str)
def test_an_error_of_the_display_changes_no_exit_code(command, monkeypatch, arguments):
    def broken(*_, **__):
        raise TypeError("no format")

    monkeypatch.setattr(Console, "print", broken)
    ran = command(*arguments)
    assert ran.code == int(arguments[0] in FAILING), ran.err
    assert "cannot be shown" in ran.err


def test_an_error_of_the_progress_is_logged_once_and_ends_the_display(caplog):
    console = Console(width=80, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with Display(console) as display:
        display.start()
        for _ in range(3):
            display.show(lambda: "{:.0f}".format("no number"))
            display.say("a line")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("progress cannot be shown, and the work goes on: ValueError: ")
    assert display.is_quiet


def invalid(values: list[bytes | None]) -> pa.Array:
    """Return strings with the given bytes."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


TEXTS = invalid([b"caf\xe9", b"a", None])
ARRAYS = {
    "string": (TEXTS, ["caf\ufffd", "a", None]),
    "string_view": (TEXTS.cast(pa.binary()).cast(pa.binary_view()).view(pa.string_view()), ["caf\ufffd", "a", None]),
    "list": (pa.ListArray.from_arrays([0, 1, 3, 3], TEXTS), [["caf\ufffd"], ["a", None], []]),
    "struct": (pa.StructArray.from_arrays([TEXTS], ["x"]), [{"x": "caf\ufffd"}, {"x": "a"}, {"x": None}]),
    "dictionary": (pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), TEXTS), ["a", "caf\ufffd", None]),
    "ordered": (pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), TEXTS, ordered=True), ["a", "caf\ufffd", None]),
    "map": (
        pa.MapArray.from_arrays([0, 1, 2, 2], pa.array(["k", "l"]), TEXTS.slice(0, 2)),
        [[("k", "caf\ufffd")], [("l", "a")], []],
    ),
    "bytes": (pa.array([b"\xe9", b"a", None]), [b"\xe9", b"a", None]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_invalid_text_of_any_column_is_readable(kind):
    array, values = ARRAYS[kind]
    table = readable(pa.table({"n": [1, 2, 3], "x": array}).slice(0, 3))
    assert table.column("x").to_pylist() == values
    assert table.column("n").to_pylist() == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_a_try_out_shows_rows_with_invalid_text(raysp_command, folder, tmp_path, monkeypatch, options):
    run_without_ray(monkeypatch)
    rows = pq.read_table(folder / "in" / "a.parquet").slice(0, 3)
    rows = rows.set_column(rows.column_names.index("text"), "text", TEXTS)
    write_shard(
        tmp_path / "in" / "a.parquet", table=rows.append_column("tags", pa.ListArray.from_arrays([0, 1, 2, 3], TEXTS))
    )
    ran = raysp_command("run", write_recipe(tmp_path), "--rows", "3", *options, "--set", 'sink.keep=["text", "tags"]')
    assert (ran.code, "cannot be shown" in ran.err) == (0, False)
    if options:
        table = json.loads(ran.out)["table"]
        assert (table[0]["text"], table[0]["tags"]) == ("caf\ufffd", ["caf\ufffd"])


NO_COLUMNS = {"COLUMNS": "0", "FORCE_COLOR": "1"}
ONE_COLUMN = {"COLUMNS": "1", "FORCE_COLOR": "1", "TERM": "dumb"}
ASCII, UTF_16 = ({"PYTHONIOENCODING": one} for one in ("ascii:strict", "utf-16"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {**NO_COLUMNS, **UTF_16},
        {**ONE_COLUMN, **ASCII},
        *soaked([NO_COLUMNS, ONE_COLUMN, ASCII, UTF_16]),
    ],
    ids=str,
)
def test_odd_terminals_and_encodings_change_no_exit_code(folder, tmp_path, variables):
    place = tmp_path / "S\u00e1ti-\U0001f399"
    place.mkdir()
    (place / "labels").symlink_to(folder / "A")
    command = [sys.executable, "-m", "raysp", "status", str(place / "labels"), "--verbose"]
    ran = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False)
    assert (ran.returncode, b"Error" in ran.stderr) == (0, False)
    assert b"checkpoint_digest" in ran.stdout.replace(b"\0", b"")
