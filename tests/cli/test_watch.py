"""`raysp status --watch`: lines for changes, one block in place on a terminal, and its exit codes."""

import io
import json

import pytest
from rich.console import Console

from raysp.cli import sink_verbs
from raysp.cli.sink_verbs import LOST
from raysp.sink import lease, run_record
from raysp.sink.lease import Holder, Process
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore
from raysp.verbs import watching as states
from tests.trainings import Sink


@pytest.fixture
def training(tmp_path) -> Sink:
    return Sink(tmp_path / "model")


@pytest.fixture
def sleeps(monkeypatch):
    """Replace sleeping by a list of things that happen; gives the seconds that were slept."""
    slept: list[float] = []

    def run(*happen) -> list[float]:
        steps = iter(happen)

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            next(steps)()

        monkeypatch.setattr(states.Watch.__init__, "__defaults__", (states.time.monotonic, sleep))
        return slept

    return run


def test_changes_are_lines_and_the_end_is_the_whole_status(raysp_command, training, sleeps):
    held = lease.acquire(LocalStore(training.url), holder=Holder.now())
    slept = sleeps(lambda: training.train(range(1, 11)), lambda: None, held.release)
    ran = raysp_command("status", training.url, "--watch")
    first, second, *rest = ran.out.splitlines()
    assert (ran.code, slept) == (0, [5.0] * 3)
    assert first.split(" ", 1)[1].startswith("0 steps (0%)")
    assert second.split(" ", 1)[1].startswith("10 steps (25%), loss ")
    assert rest[rest.index(training.url) + 1].startswith("  run ")


def test_json_is_one_object_after_the_end(raysp_command, training, sleeps):
    held = lease.acquire(LocalStore(training.url), holder=Holder.now())
    sleeps(held.release)
    ran = raysp_command("status", training.url, "--watch", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["running"] == "no"


def test_ctrl_c_ends_it(raysp_command, training, sleeps):
    lease.acquire(LocalStore(training.url), holder=Holder.now())

    def interrupt() -> None:
        raise KeyboardInterrupt

    sleeps(interrupt)
    assert raysp_command("status", training.url, "--watch").code == 130


def test_a_lost_run_is_said(raysp_command, tmp_path, sleeps, monkeypatch):
    monkeypatch.setattr(states, "STALE_BEATS", 0)
    store = LocalStore(tmp_path / "labels")
    run = RunEntry.now()
    run_record.begin(store, run_record.RunRecord(run.started, {}, "f00d", {}, {}, (run,)))
    lease.acquire(store, holder=Holder("ann-1", Process("another machine", "x", 1, "1"), "2026-01-01"))
    sleeps()
    ran = raysp_command("status", store.url, "--watch")
    assert (ran.code, ran.err) == (0, f"raysp: {LOST}\n")
    assert "0 of 0 rows done (100%)" in ran.out


def test_on_a_terminal_it_is_one_block_in_place(raysp_command, training, sleeps, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=40, highlight=False)
    monkeypatch.setattr(sink_verbs, "out", console)
    held = lease.acquire(LocalStore(training.url), holder=Holder.now())
    sleeps(lambda: training.train(range(1, 11)), held.release)
    assert raysp_command("status", training.url, "--watch").code == 0
    shown = screen.getvalue()
    assert "\x1b[1A" in shown  # the cursor goes up, so that the block is replaced
    assert shown.count("10 committed") >= 1


def test_a_folder_that_is_no_sink_is_refused(raysp_command, tmp_path):
    plain, watched = (raysp_command("status", tmp_path, *more) for more in ((), ("--watch",)))
    assert (watched.code, watched.err) == (plain.code, plain.err) == (2, plain.err)
