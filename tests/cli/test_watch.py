"""`raysp status --watch`: lines for changes, one block in place on a terminal, and its exit codes."""

import io
import json

import pytest
from rich.console import Console

from raysp.cli import sink_verbs
from raysp.verbs import watching
from tests import kit
from tests.trainings import Sink


@pytest.fixture
def training(tmp_path) -> Sink:
    return Sink(tmp_path / "model")


@pytest.fixture
def sleeps(monkeypatch):
    """Replace sleeping by things that happen: a watch sleeps five seconds, by no public name."""

    def happening(*happen) -> None:
        steps = iter(happen)
        monkeypatch.setattr(watching.Watch.__init__, "__defaults__", (watching.time.monotonic, lambda _: next(steps)()))

    return happening


def release(training: Sink) -> None:
    """End the run that holds a training."""
    [path] = training.files.paths(".raysp/lease")
    training.files.write(path, {**json.loads(training.files.read(path)), "released": True})


def test_changes_are_lines_and_the_end_is_the_whole_status(training, sleeps):
    training.hold()
    sleeps(lambda: training.train(range(1, 11)), lambda: None, lambda: release(training))
    ran = kit.run(["status", training.url, "--watch"])
    first, second, *rest = ran.out.splitlines()
    assert ran.code == 0
    assert first.split(" ", 1)[1].startswith("0 steps (0%)")
    assert second.split(" ", 1)[1].startswith("10 steps (25%), loss ")
    assert rest[rest.index(training.url) + 1].startswith("  run ")
    assert json.loads(kit.run(["status", training.url, "--watch", "--json"]).out)["running"] == "no"


def test_ctrl_c_ends_it(training, sleeps):
    training.hold()

    def interrupt() -> None:
        raise KeyboardInterrupt

    sleeps(interrupt)
    assert kit.run(["status", training.url, "--watch"]).code == 130


def test_on_a_terminal_it_is_one_block_in_place(training, sleeps, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sink_verbs, "out", Console(file=screen, force_terminal=True, width=100, highlight=False))
    training.hold()
    sleeps(lambda: training.train(range(1, 11)), lambda: release(training))
    assert kit.run(["status", training.url, "--watch"]).code == 0
    assert "\x1b[1A" in screen.getvalue()  # the cursor goes up, so that the block is replaced
    assert "10 committed" in screen.getvalue()


def test_a_folder_that_is_no_sink_is_refused(tmp_path):
    plain, watched = (kit.run(["status", tmp_path, *more]) for more in ((), ("--watch",)))
    assert (watched.code, watched.err) == (plain.code, plain.err) == (2, plain.err)
