"""A user's code under faults: errors with their line, one traceback, prints, and filters that see all columns."""

import json

import pyarrow.parquet as pq
import pytest

from tests import kit
from tests.corpora import CHECKPOINT, digits_table

ROWS = digits_table(3)
PIPELINE = """
import raysp
import rules

label = raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()])
pipeline = raysp.Pipeline(
    raysp.Shards("in", text={text!r}), steps=[{steps}], sink=raysp.Parquet("out"), max_error_rate=1.0
)
"""
RULES = """
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq


def level(rows):
    return {"level": [deeper(one) for one in rows.column("id").to_pylist()]}


def deeper(name):
    raise ValueError(f"no level of {name}")  # the line of `level`


def loud(rows):
    return [len(name) / 0 for name in rows.column("id").to_pylist()]  # the line of `loud`


def picky(rows):
    return [1 / (name != rows_of_the_corpus()[1]) > 0 for name in rows.column("id").to_pylist()]  # the line of `picky`


def rows_of_the_corpus():
    return pq.read_table("in/a.parquet")["id"].to_pylist()


def misnamed(rows):
    return [name == "a" for name in rows["speaker"].to_pylist()]  # the line of `misnamed`


def names(rows):
    print("columns", *sorted(rows.column_names))
    return [True] * rows.num_rows


def printing(rows):
    print("rows", rows.num_rows)
    print("more of them", file=sys.stderr)
    return {"level": [0.0] * rows.num_rows}


def interrupted(rows):
    if rows.num_rows:
        if os.path.exists("worker"):  # of Ray, whose handler does so
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        signal.raise_signal(signal.SIGTERM)
    return {"level": [1] * rows.num_rows}


def kept_until_interrupted(rows):
    return [bool(one) for one in interrupted(rows)["level"]]


def wordy(rows):
    return ["no"] * rows.num_rows


def holes(rows):
    return [float("nan")] * rows.num_rows


def calling(rows):
    subprocess.run(["echo", "of a child"], check=True)
    os.write(1, b"of a library")
    return {"level": [1] * rows.num_rows}


def pooling(rows):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        levels = pool.map(len, [[0]] * rows.num_rows)
        for _ in range(4):
            pool.apply_async(time.sleep, (60,))
        time.sleep(0.2)
    return {"level": levels}


"""
MAP = 'raysp.Map(rules.level, adds={"level": "float32"}, reads=["id"])'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with three recordings and the user's module, in which commands run."""
    (tmp_path / "in").mkdir()
    pq.write_table(ROWS, tmp_path / "in" / "a.parquet")
    (tmp_path / "rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(folder, raysp_command):
    """A command over a pipeline of these steps."""

    def run(verb: str, steps: str, *options: object, text: str | None = "text"):
        (folder / "label.py").write_text(PIPELINE.format(checkpoint=str(CHECKPOINT), steps=steps, text=text))
        return raysp_command(verb, "label.py", *options)

    return run


def line_of(name: str) -> str:
    """Return the place of the line that raises, as messages have it."""
    lines = RULES.splitlines()
    return f"rules.py:{next(number for number, line in enumerate(lines, 1) if f'`{name}`' in line)}"


BEHIND = 'raysp.Decode(), label, raysp.Keep(where="rules:{}")'


def test_a_function_of_keep_that_fails_for_a_row_fails_this_row_alone(command, raysp_command, folder):
    ran = command("run", BEHIND.format("picky"), "--json")
    assert ran.code == 0, ran.err
    rows = pq.read_table(folder / "out" / "a.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "error", "ok"]
    assert rows[1]["error_type"] == "step_failed"
    assert rows[1]["error_message"].startswith(f"Keep rules:picky failed: {line_of('picky')}: ZeroDivisionError")
    assert rows[1]["pred_text"] is None
    assert json.loads(raysp_command("status", "out", "--json").out)["errors_by_type"] == {"step_failed": 1}
    assert json.loads(ran.out)["errors"] == {"step_failed": 1}
    [example] = json.loads(ran.out)["error_examples"]
    assert example.startswith("a.parquet row 1 (id ")
    assert f"step_failed: Keep rules:picky failed: {line_of('picky')}: Zero" in example
    log = "".join(file.read_text() for file in (folder / "out" / ".raysp" / "log").iterdir())
    assert log.count('"row_blamed"') == 1
    assert "picky" not in log  # a function may quote the labels of a row, which `forget` takes out
    retried = raysp_command("retry", "label.py")
    assert (retried.code, "1 labelled again, 1 failed again" in retried.out) == (3, True), retried.err
    assert pq.read_table(folder / "out" / "a.parquet").column("status").to_pylist() == ["ok", "error", "ok"]


def test_a_filter_behind_label_that_fails_for_most_rows_commits_no_shard(folder, raysp_command):
    text = PIPELINE.format(checkpoint=str(CHECKPOINT), steps=BEHIND.format("loud"), text="text")
    (folder / "label.py").write_text(text.replace("max_error_rate=1.0", "max_error_rate=0.5"))
    ran = raysp_command("run", "label.py")
    assert ran.code == 1
    reason = "steps after the model failed for 3 of 3 rows, more than the 1 of max_error_rate=0.5; correct the function"
    assert f"a.parquet: {reason}. For example, Keep rules:loud failed: {line_of('loud')}: Zero" in ran.err
    assert not (folder / "out" / "a.parquet").exists()
    # Its labels stay staged for a corrected function.
    again = raysp_command("run", "label.py").err
    assert "raysp: all rows of 1 shard are labelled and to be committed; 0 of 1 shard committed already" in again


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("engine", ["here", "ray"])
@pytest.mark.parametrize(
    ("steps", "function"),
    [
        (f"raysp.Decode(), {MAP}, label", "level"),
        ('raysp.Decode(), label, raysp.Keep(where="rules:loud")', "loud"),
    ],
    ids=["a Map", "a Keep behind Label"],
)
def test_the_line_and_one_traceback_arrive_from_other_processes(
    local_ray, folder, raysp_command, steps, function, engine
):
    text = PIPELINE.format(checkpoint=str(CHECKPOINT), steps=steps, text="text")
    # So that a filter that fails for all rows fails the shard.
    (folder / "label.py").write_text(text.replace("max_error_rate=1.0", "max_error_rate=0.5"))
    ran = raysp_command("run", "label.py", "--debug", "--engine", engine)
    assert f" rules:{function} failed: {line_of(function)}: " in ran.out + ran.err
    assert ran.err.count(f", in {function}\n") == 1


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("languages = {}\npipeline = languages['en']", "raised KeyError: 'en', at broken.py:4"),
        ("import sys\nsys.exit()", "raised SystemExit, at broken.py:4"),
        ("raise GeneratorExit", "raised GeneratorExit, at broken.py:3"),
        ("pipeline = (", ", at broken.py:3"),  # no Python
    ],
)
def test_an_error_of_a_pipeline_file_has_its_line_also_one_that_ends_the_process(folder, raysp_command, code, error):
    (folder / "broken.py").write_text(f"import raysp\n\n{code}\n")
    ran = raysp_command("plan", "broken.py")
    assert (ran.code, ran.err.startswith("raysp: broken.py"), ran.err.count("\n")) == (2, True, 1)
    assert ran.err.endswith(f"{error}\n")


def test_an_error_outside_of_rows_is_that_of_the_users_code_and_no_bug_of_raysp(folder, raysp_command):
    (folder / "broken.py").write_text(
        "import raysp\nfrom raysp.specs import spec\n\n\n@spec\nclass Loud(raysp.Transcript):\n"
        "    def check(self, checkpoint):\n        return checkpoint.loudness\n\n\n"
        f"label = raysp.Label({str(CHECKPOINT)!r}, outputs=[Loud()])\n"
        'pipeline = raysp.Pipeline(raysp.Shards("in"), steps=[raysp.Decode(), label], sink=raysp.Parquet("out"))\n'
    )
    ran = raysp_command("plan", "broken.py")
    assert ran.code == 1
    assert "raysp: broken.py:8: AttributeError: " in ran.err
    assert "(raised by your code; --debug shows the traceback)" in ran.err


def test_prints_of_a_users_code_reach_the_terminal(command):
    steps = 'raysp.Decode(), raysp.Map(rules.printing, adds={"level": "float32"}, reads=["id"]), label'
    ran = command("run", steps, "--rows", 3)
    assert "rows " in ran.out
    assert "more of them" in ran.err
    ran = command("run", steps, "--rows", 3, "--json")
    assert len(json.loads(ran.out)["table"]) == 3  # one JSON object alone
    assert "rows " in ran.err


INTEGER = 'raysp.Map(rules.{}, adds={{"level": "{}"}}, reads=["id"])'


@pytest.mark.parametrize(
    ("steps", "file", "code"),
    [
        (f"raysp.Decode(), {INTEGER.format('interrupted', 'int64')}, label", "run", 143),
        ('raysp.Decode(), raysp.Keep(where="rules:kept_until_interrupted"), label', "worker", 1),
    ],
    ids=["a Map", "a Keep"],
)
def test_a_process_that_is_terminated_within_a_function_blames_no_row(folder, command, steps, file, code):
    (folder / file).touch()
    ran = command("run", steps, "--engine", "here")
    assert ran.code == code
    assert not [*(folder / "out").glob("*.parquet")]


@pytest.mark.parametrize(
    ("function", "value", "steps"),
    [("wordy", "'no'", "{keep}, raysp.Decode(), label"), ("holes", "nan", "raysp.Decode(), label, {keep}")],
)
def test_a_filter_answers_true_or_false(command, steps, function, value):
    ran = command("run", steps.format(keep=f'raysp.Keep(where="rules:{function}")'), "--rows", 3)
    assert ran.code == 3
    expected = f"Keep rules:{function} returned the value {value}, expected True or False for each row"
    assert expected in ran.err, ran.err


@pytest.mark.drivers
@pytest.mark.parametrize(("function", "said"), [("calling", "of a child"), ("pooling", "")])
def test_processes_that_a_function_starts_change_no_output_and_end_no_run(folder, function, said):
    steps = f"{INTEGER.format(function, 'int64')}, raysp.Decode(), label"
    text = PIPELINE.format(checkpoint=str(CHECKPOINT), steps=steps, text="text")
    # So that a filter that fails for all rows fails the shard.
    (folder / "label.py").write_text(text.replace("max_error_rate=1.0", "max_error_rate=0.5"))
    ran = kit.run_forked("run label.py --rows 3 --json")
    assert ran.code == 0, ran.err
    assert [row["level"] for row in json.loads(ran.out)["table"]] == [1, 1, 1]  # one JSON object alone
    assert said in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("label", "decode"),
    [("", ""), ("window_seconds=0.3, overlap_seconds=0.1", ""), ("", "channel='each'")],
    ids=["one window", "several windows", "channels"],
)
def test_a_filter_behind_label_sees_the_source_and_the_steps_before_it(command, label, decode):
    """Whether the windows or channels of a row are joined or not."""
    labels = f"raysp.Label({str(CHECKPOINT)!r}, outputs=[raysp.Transcript()], {label})"
    keep = "raysp.Keep(where='rules:names')"
    text = None if decode else "text"  # a text is of one channel
    ran = command("run", f"raysp.Decode({decode}), {labels}, {keep}", "--rows", 3, text=text)
    assert ran.code == 0
    seen = {line for line in ran.out.splitlines() if line.startswith("columns ")}
    assert seen == {"columns id pred_score pred_text sampling_rate speaker_id text"}  # those of the plan and of the run


@pytest.mark.parametrize(
    ("verb", "steps", "place", "columns"),
    [
        ("plan", 'raysp.Keep(where="rules:misnamed"), raysp.Decode(), label', "steps[0]", "'text'"),
        (
            "run",
            'raysp.Decode(), label, raysp.Keep(where="rules:misnamed")',
            "steps[2]",
            "'text', 'pred_text', 'pred_score'",
        ),
    ],
    ids=["before Label", "behind Label"],
)
def test_a_filter_that_names_a_column_that_is_not_there_is_refused_before_any_work(
    command, folder, verb, steps, place, columns
):
    ran = command(verb, steps)
    assert ran.code == 2
    assert f"in/a.parquet: {place} Keep rules:misnamed failed: {line_of('misnamed')}: KeyError: " in ran.err
    assert ran.err.endswith(f"of the columns 'id', 'sampling_rate', 'speaker_id', {columns}\n")
    assert not (folder / "out").exists()
