"""`raysp finetune` and `raysp plan` of a recipe: output, exit codes, kills."""

import json
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


@pytest.mark.slow
def test_a_try_out_and_a_training_print_where_to_go_on(raysp_command, file, tmp_path):
    ran = raysp_command("finetune", file(), "--steps", "2")
    assert (ran.code, ran.complaints) == (0, [])
    assert ran.out.count("(reference ") == 5
    assert ran.out.endswith(f"next         raysp finetune {file()}\n")
    assert not (tmp_path / "out").exists()
    ran = raysp_command("finetune", file(), "--set", "schedule.epochs=1")
    assert (ran.code, ran.complaints) == (0, [])
    assert ran.out.splitlines()[-3:] == [
        f"checkpoint   {tmp_path}/out",
        f"report       {tmp_path}/out/.raysp/report.html",
        f"next         raysp inspect {tmp_path}/out",
    ]
    assert "1 whole epoch, loss " in ran.out
    inspected = raysp_command("inspect", tmp_path / "out")
    assert (inspected.code, "UniSpeechForCTC" in inspected.out) == (0, True)


@pytest.mark.drivers
@pytest.mark.slow
def test_a_signal_stops_after_a_commit_and_says_how_to_continue(file, tmp_path):
    path = file(epochs=500)
    command = [sys.executable, "-m", "raysp", "finetune", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    steps = tmp_path / "out" / ".raysp" / "steps"
    deadline = time.monotonic() + 60
    while not [*steps.glob("*.json")]:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    printed = process.stdout.read()
    assert printed.endswith(f"to continue  raysp finetune {path}\n")
    done = max(int(marker.stem) for marker in steps.glob("*.json"))
    assert f"steps        {done:,}, " in printed
    assert load_file(next(steps.glob(f"{done}.*/model.safetensors")))


@pytest.mark.slow
def test_a_plan_of_a_recipe_is_calibrated_and_writes_nothing(raysp_command, file, tmp_path):
    ran = raysp_command("plan", file(), "--calibrate")
    assert (ran.code, ran.complaints) == (0, [])
    lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert re.match(
        r"[\d.]+ [MG]B resident at the peak, measured here, [\d.]+ MB of it for the training", lines["memory"]
    )
    assert re.match(r"[\d,.]+x real time on one worker, measured here on 1 CPU: 0:0\d of audio in ", lines["speed"])
    found = json.loads(raysp_command("plan", file(), "--json").out)
    assert (found["rows_trained"], found["steps_per_epoch"], found["vocabulary"]["<pad>"]) == (30, 4, 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("finetune {empty}", "expected one raysp.Finetune, found none"),
        ("finetune {half}", "Finetune needs 'steps', such as steps=[raysp.Decode()]"),
        ("run {recipe}", "expected one raysp.Pipeline, found a raysp.Finetune, which `raysp finetune {recipe}` takes"),
        ("plan {recipe} --sample 5", "--sample: the rows of a training are indexed, not sampled, found the recipe"),
        ("plan {recipe} --like nowhere", "not the sink of a training"),
    ],
)
def test_what_does_not_fit_a_recipe_is_refused(raysp_command, file, tmp_path, line, message):
    files = {"recipe": file(), "empty": tmp_path / "empty.py", "half": tmp_path / "half.py"}
    files["empty"].write_text("import raysp\n")
    files["half"].write_text("import raysp\nrecipe = raysp.Finetune('in')\n")
    ran = raysp_command(*line.format(**files).split())
    assert (ran.code, ran.out) == (2, "")
    assert message.format(**files) in ran.err
