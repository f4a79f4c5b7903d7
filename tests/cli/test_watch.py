"""`raysp status --watch`: lines for changes, one block in place on a terminal, and its exit codes."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests import kit
from tests.trainings import Sink


def watching(training: Sink, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "raysp", "status", training.url, "--watch"]
    interruptible = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}, **interruptible
    )


@pytest.mark.slow
def test_changes_are_lines_or_a_block_in_place_the_end_is_the_whole_status_and_ctrl_c_ends_it(tmp_path):
    training = Sink(tmp_path / "model")
    training.hold()
    plain, on_a_terminal = watching(training), watching(training, FORCE_COLOR="1", TERM="xterm", COLUMNS="100")
    first, block = plain.stdout.readline(), on_a_terminal.stdout.readline()
    assert first.split(" ", 1)[1].startswith("0 steps (0%)")

    training.train(range(1, 11))
    second = plain.stdout.readline()
    assert second.split(" ", 1)[1].startswith("10 steps (25%), loss ")
    while "10 committed" not in block:
        block += on_a_terminal.stdout.readline()
    on_a_terminal.send_signal(signal.SIGINT)
    assert on_a_terminal.wait(60) == 130
    assert "\x1b[1A" in block  # the cursor goes up, so that the block is replaced

    [path] = training.files.paths(".raysp/lease")
    training.files.write(path, {**json.loads(training.files.read(path)), "released": True})
    rest, _ = plain.communicate(timeout=60)
    assert plain.returncode == 0
    lines = rest.splitlines()
    assert lines[lines.index(training.url) + 1].startswith("  run ")
    assert json.loads(kit.run(["status", training.url, "--watch", "--json"]).out)["running"] == "no"


def test_a_folder_that_is_no_sink_is_refused(tmp_path):
    plain, watched = (kit.run(["status", tmp_path, *more]) for more in ((), ("--watch",)))
    assert (watched.code, watched.err) == (plain.code, plain.err) == (2, plain.err)
