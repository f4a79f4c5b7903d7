"""Stores that fail while a run works: its exit code, and the same command again."""

import pytest

from tests import kit

LONG = "3600"
"""Seconds between beats: a run that took the lease for that of an active run would wait for six times as long."""


@pytest.fixture
def labelled(tmp_path):
    """The command that labels two rows to `memory://labels`, its rows, and the number of its changes."""
    corpus = kit.corpus(tmp_path / "in", rows=2)
    with kit.failing_files() as files:
        line = ["run", corpus.file(tmp_path / "label.py", files.url("labels")), "--engine", "here"]
        assert kit.run(line).code == 0
        return line, kit.rows(files.url("labels")), files.changes


def test_a_lost_answer_to_any_change_costs_the_next_run_no_wait(labelled, monkeypatch):
    line, expected, changes = labelled
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", LONG)
    for n in range(1, changes + 1):
        with kit.failing_files() as files:
            files.fail_at(n, "lost")
            first = kit.run(line)
            files.revive()
            again = kit.run(line)
            assert (again.code, kit.rows(files.url("labels"))) == (0, expected), (n, first.err, again.err)


def test_a_store_that_is_full_in_the_middle_fails_the_run_and_refuses_one_that_has_not_begun(labelled):
    line, expected, changes = labelled
    codes = []
    for n in range(1, changes + 1):
        with kit.failing_files() as files:
            files.fail_at(n, "full")
            ran = kit.run(line)
            assert ran.code == 0 or "[Errno 28]" in ran.err, ran.err
            codes.append(ran.code)
            files.revive()
            assert (kit.run(line).code, kit.rows(files.url("labels"))) == (0, expected), n
    started = codes.index(1)
    assert {*codes[:started]} == {2}
    assert {*codes[started:]} <= {0, 1, 3}


def test_a_web_server_is_no_place_for_labels(tmp_path):
    file = kit.corpus(tmp_path / "in", rows=1).file(tmp_path / "label.py", "http://127.0.0.1:9/labels")
    ran = kit.run(["run", file])
    assert (ran.code, "http:// can only be read; write to s3://" in ran.err) == (2, True), ran.err
