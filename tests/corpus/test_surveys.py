"""Surveys of many shards: several processes give what this one gives, and leave nothing behind."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from raysp.corpus import survey_process, surveys
from raysp.corpus.shards import Group, Survey
from raysp.corpus.surveys import Reading, survey_all
from tests.corpora import rows_table, write_shard

NUM_SHARDS = 90
COLUMNS = ("audio", "id")


class Target(NamedTuple):
    kind: str
    url: str
    part: str = ""


@pytest.fixture
def many(monkeypatch):
    """Some shards are many, and make several chunks for each process."""
    monkeypatch.setattr(surveys, "WORTH_PROCESSES", NUM_SHARDS)
    monkeypatch.setattr(surveys, "SHARDS_A_CHUNK", 8)


@pytest.fixture
def targets(tmp_path) -> list[Target]:
    """Shards of two schemas in turn, with row groups and without rows, and some that cannot be read."""
    small = rows_table(3)
    kinds = [small, small.drop_columns("text"), rows_table(40, audio=bytes(10)), small.slice(0, 0)]
    found = []
    for number in range(NUM_SHARDS):
        place = tmp_path / f"{number:03}.parquet"
        if number % 10 == 7:
            place.write_bytes(b"PAR1 cut short")
        elif number % 10 != 8:  # which are missing
            write_shard(place, table=kinds[number % 4], row_group_size=16)
        found.append(Target("parquet", str(place)))
    return found


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen]:
    """The processes that were started."""
    found = []

    class Kept(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            found.append(self)

    monkeypatch.setattr(surveys.subprocess, "Popen", Kept)
    return found


def by_threads(targets) -> list[Survey | str]:
    return list(survey_all(targets, Reading({}, COLUMNS)))


@pytest.mark.slow
@pytest.mark.usefixtures("many")
class TestProcesses:
    def test_they_give_what_this_process_gives_in_order(self, targets, started):
        found = list(survey_all(targets, Reading({}, COLUMNS), processes=3))
        assert found == by_threads(targets)
        assert [isinstance(one, str) for one in found] == [number % 10 in (7, 8) for number in range(NUM_SHARDS)]
        assert len({one.schema for one in found if isinstance(one, Survey)}) == 2
        assert len(started) == 3
        assert all(process.returncode is not None for process in started)

    def test_shards_of_a_process_that_is_killed_are_surveyed_by_this_one(self, targets, started, caplog):
        found = []
        with contextlib.closing(survey_all(targets, Reading({}, COLUMNS), processes=2)) as surveyed:
            found.append(next(surveyed))
            started[0].kill()
            found += surveyed
        assert found == by_threads(targets)
        [warning] = [one.message for one in caplog.records if one.levelno == logging.WARNING]
        assert "ended with signal SIGKILL" in warning

    def test_a_process_that_cannot_start_costs_only_time(self, targets, monkeypatch):
        monkeypatch.setattr(surveys, "MAIN", "raysp.corpus.no_such_module")
        assert list(survey_all(targets, Reading({}, COLUMNS), processes=2)) == by_threads(targets)

    def test_they_end_when_no_more_surveys_are_wanted(self, targets, started):
        surveyed = survey_all(targets, Reading({}, COLUMNS), processes=2)
        next(surveyed)
        with pytest.raises(KeyboardInterrupt):
            surveyed.throw(KeyboardInterrupt)
        assert [process.returncode for process in started] == [-signal.SIGKILL] * 2

    def test_they_end_with_this_process_and_get_no_signals_of_its_terminal(self, started):
        process = surveys._Process(Reading({}, COLUMNS))
        assert os.getpgid(started[0].pid) == started[0].pid
        started[0].stdin.close()
        assert started[0].wait() == 0
        process.__exit__(None, None, None)

    def test_secrets_are_not_among_their_arguments(self, started, targets):
        options = {"key": "a", "secret": "never shown"}
        with surveys._Process(Reading(options, COLUMNS)) as process:
            process.send(targets[:1])
            assert process.receive() == by_threads(targets[:1])
            shown = [Path(f"/proc/{started[0].pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        assert not any(b"never shown" in one for one in shown)

    def test_slices_of_a_file_are_surveyed_by_this_process(self, started, tmp_path):
        found = list(
            survey_all([Target("manifest", str(tmp_path / "m.jsonl"), "0-10")] * NUM_SHARDS, Reading({}, ()), 2)
        )
        assert all(isinstance(one, str) for one in found)
        assert started == []


def test_few_shards_start_no_process(targets, started):
    assert list(survey_all(targets, Reading({}, COLUMNS), processes=8)) == by_threads(targets)
    assert started == []


def test_an_unexpected_error_of_a_process_is_raised_here(monkeypatch):
    failed = Future()
    failed.set_exception(RuntimeError("a bug"))
    assert survey_process._answer([failed]) == survey_process.FAILED

    class Failing:
        def receive(self):
            return None

    def survey(self, targets):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Reading, "survey", survey)
    with pytest.raises(RuntimeError, match="a bug"):
        list(surveys._answered(Failing(), [Target("parquet", "/x")], Reading({}, ())))


def test_surveys_in_json_are_the_same(targets):
    found = by_threads(targets)
    assert len(surveys.encode(found)) < 60_000  # schemas are written once for neighbours that agree
    one = Survey(pa.schema([("a", pa.int64())]), 0, [Group(3, 2, 0.1)], "d", frozenset({"x"}), 1.5)
    raw = json.loads(surveys.encode([one, "why not", one]))
    schemas = [surveys._schema(text) for text in raw["schemas"]]
    assert len(schemas) == 1
    assert [text if isinstance(text, str) else surveys._decoded(text, schemas) for text in raw["surveys"]] == [
        one,
        "why not",
        one,
    ]


@pytest.mark.lengthy
def test_the_process_imports_neither_torch_nor_ray():
    program = (
        "import sys, raysp.corpus.survey_process; "
        "print({'torch', 'ray', 'pandas', 'pydantic'} & {name.partition('.')[0] for name in sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
