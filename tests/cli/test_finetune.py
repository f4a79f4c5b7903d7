"""`raysp finetune` and `raysp plan` of a recipe: output, exit codes, kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

RECIPE = """
import raysp
recipe = raysp.Finetune(
    raysp.Shards({source!r}, text="text"),
    steps=[raysp.Decode()],
    objective=raysp.CTC({checkpoint!r}, vocabulary="build", masks={{"layerdrop": 0.2}}),
    schedule=raysp.Schedule(epochs={epochs}, learning_rate=1e-3),
    batching=raysp.Batching(seconds=6, micro_batches=3, window_seconds=10),
    sink=raysp.Checkpoint({sink!r}, every=2),
    pool=raysp.Pool(1, cpus=1),
)
"""


@pytest.fixture
def file(words, tiny, tmp_path):
    def write(sink: str = "out", epochs: int = 2) -> Path:
        path = tmp_path / "recipe_of_a_test.py"
        path.write_text(RECIPE.format(source=words, checkpoint=str(tiny), sink=str(tmp_path / sink), epochs=epochs))
        return path

    return write


def started(file: Path, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "raysp", "finetune", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


@pytest.mark.lengthy
def test_a_plan_prints_rows_characters_and_steps(raysp_command, file, tmp_path):
    ran = raysp_command("plan", file())
    assert (ran.code, ran.complaints) == (0, [])
    names = [line.split()[0] for line in ran.out.splitlines()]
    expected = "source checkpoint objective step workers longest sink rows characters epoch fingerprint commit "
    expected += "memory time"
    assert names == expected.split()
    assert re.search(r"; with 2 the slowest takes 1\.\d\d of the mean, with 3 1\.\d\d\n", ran.out)
    assert ran.out.endswith("\ntime         unknown: give --rtfx N, --like SINK (of a training), or --calibrate\n")
    assert re.search(r"\nrows         30 rows, 0:\d\d of audio\n", ran.out)
    assert not (tmp_path / "out").exists()
    found = json.loads(raysp_command("plan", file(), "--json").out)
    assert (found["rows_trained"], found["steps_per_epoch"], found["vocabulary"]["<pad>"]) == (30, 4, 0)
    assert (found["estimate"]["left"]["steps"], found["estimate"]["speed"], found["estimate"]["cost"]) == (
        8,
        None,
        None,
    )


@pytest.mark.slow
def test_a_training_prints_where_the_checkpoint_is(raysp_command, file, words, tmp_path):
    ran = raysp_command("finetune", file(), "--set", "schedule.epochs=1")
    assert (ran.code, ran.complaints) == (0, [])
    lines = ran.out.splitlines()
    assert lines[-3:] == [
        f"checkpoint   {tmp_path}/out",
        f"report       {tmp_path}/out/.raysp/report.html",
        f"next         raysp inspect {tmp_path}/out",
    ]
    assert "1 whole epoch, loss " in ran.out
    inspected = raysp_command("inspect", tmp_path / "out")
    assert (inspected.code, "UniSpeechForCTC" in inspected.out) == (0, True)


@pytest.mark.slow
def test_a_try_out_prints_texts_and_the_command_that_trains(raysp_command, file, tmp_path):
    ran = raysp_command("finetune", file(), "--steps", "2")
    assert (ran.code, ran.complaints) == (0, [])
    assert ran.out.count("(reference ") == 5
    assert ran.out.endswith(f"next         raysp finetune {file()}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import raysp\n", "expected one raysp.Finetune, found none"),
        ("import raysp\nrecipe = raysp.Finetune('in')\n", "Finetune needs 'steps', such as steps=[raysp.Decode()]"),
    ],
)
def test_a_file_without_a_recipe_is_refused(raysp_command, tmp_path, content, message):
    (tmp_path / "no_recipe_here.py").write_text(content)
    ran = raysp_command("finetune", tmp_path / "no_recipe_here.py")
    assert ran.code == 2
    assert message in ran.err


@pytest.fixture(scope="module")
def undisturbed(words, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    path = folder / "recipe_of_a_test.py"
    path.write_text(RECIPE.format(source=words, checkpoint=str(tiny), sink=str(folder / "out"), epochs=2))
    process = started(path)
    assert process.wait(120) == 0, process.stderr.read()
    return (folder / "out" / "model.safetensors").read_bytes()


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "before_step_committed:2",
        pytest.param("after_step_written:1", marks=pytest.mark.soak),
        pytest.param("after_step_committed:3", marks=pytest.mark.soak),
        pytest.param("after_step_removed:1", marks=pytest.mark.soak),
        pytest.param("before_exported:1", marks=pytest.mark.soak),
        pytest.param("after_exported:1", marks=pytest.mark.soak),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(file, undisturbed, tmp_path, moment):
    killed = started(file(), RAYSP_FAIL_AT=moment)
    assert killed.wait(120) == -signal.SIGKILL
    assert (tmp_path / "out" / "config.json").exists() == (moment == "after_exported:1")
    again = started(file())
    assert again.wait(120) == 0, again.stderr.read()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak)]
)
def test_a_signal_stops_after_a_commit_and_the_same_command_continues(file, tmp_path, number, code):
    path = file(epochs=500)
    process = started(path)
    steps = tmp_path / "out" / ".raysp" / "steps"
    deadline = time.monotonic() + 60
    while not [*steps.glob("*.json")]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == code
    printed = process.stdout.read()
    assert printed.endswith(f"to continue  raysp finetune {path}\n")
    done = max(int(marker.stem) for marker in steps.glob("*.json"))
    assert f"steps        {done:,}, " in printed
    assert load_file(next(steps.glob(f"{done}.*/model.safetensors")))


def test_status_and_run_name_what_a_recipe_is_for(raysp_command, file):
    recipe = file()
    ran = raysp_command("run", recipe)
    assert ran.code == 2
    assert f"expected one raysp.Pipeline, found a raysp.Finetune, which `raysp finetune {recipe}` takes" in ran.err


def facts(printed: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in printed.splitlines())


@pytest.mark.lengthy
def test_a_plan_with_a_speed_prints_time_and_money_and_json_has_the_same_values(raysp_command, file):
    options = ("--rtfx", "0.005", "--price", "2")
    ran = raysp_command("plan", file(), *options)
    found = json.loads(raysp_command("plan", file(), *options, "--json").out)["estimate"]
    lines, commit = facts(ran.out), found["commit"]
    assert lines["commit"].startswith(f"{commit['num_bytes'] / 1e6:.3g} MB each time; at most 2 are kept, up to ")
    assert (lines["memory"], found["memory"]) == ("unknown: --calibrate measures it", None)
    assert lines["speed"] == "0.005x real time on one worker, as stated"
    expected = r"1:\d\d:\d\d for 8 steps on 1 worker once started, without evaluations and commits, 1\.\d+ CPU-hours"
    assert re.fullmatch(expected, lines["time"])
    assert float(lines["money"]) == pytest.approx(found["cost"]["money"]["value"], abs=0.01)
    assert found["imbalance"].keys() == {"2", "3"}


@pytest.mark.slow
def test_a_plan_of_a_recipe_is_calibrated(raysp_command, file, tmp_path):
    ran = raysp_command("plan", file(), "--calibrate")
    assert (ran.code, ran.complaints) == (0, [])
    lines = facts(ran.out)
    expected = (
        r"[\d.]+ [MG]B resident at the peak, measured here, [\d.]+ MB of it for the training; two windows of rows "
    )
    assert re.match(expected, lines["memory"])
    assert re.match(r"[\d,.]+x real time on one worker, measured here on 1 CPU: 0:0\d of audio in ", lines["speed"])
    assert not (tmp_path / "out").exists()


def test_a_plan_of_rows_that_are_not_indexed_says_what_it_is_for(raysp_command, file, monkeypatch):
    monkeypatch.setattr("raysp.training.finetuning.PLANNED_ROWS", 10)
    ran = raysp_command("plan", file(), "--rtfx", "4")
    assert [line.split()[0] for line in ran.out.splitlines()][-4:] == ["commit", "memory", "speed", "time"]
    assert facts(ran.out)["time"] == "unknown: the rows are not indexed yet, and the source declares no durations"
    [note] = ran.complaints
    assert note == "raysp: 30 rows are not indexed yet: the training counts rows, tokens and steps"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--sample", "5"), "--sample: the rows of a training are indexed, not sampled, found the recipe"),
        (("--rtfx", "0"), "rtfx: found 0, expected a number above 0"),
        (("--like", "nowhere"), "not the sink of a training"),
    ],
)
def test_options_that_do_not_fit_a_recipe_are_refused(raysp_command, file, option, message):
    ran = raysp_command("plan", file(), *option)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
