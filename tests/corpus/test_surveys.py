"""Surveys of many shards: several processes give what this one gives, and leave nothing behind."""

import contextlib
import logging
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from raysp.corpus import surveys
from raysp.corpus.shards import Survey
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

    def test_they_end_when_no_more_surveys_are_wanted(self, targets, started):
        surveyed = survey_all(targets, Reading({}, COLUMNS), processes=2)
        next(surveyed)
        with pytest.raises(KeyboardInterrupt):
            surveyed.throw(KeyboardInterrupt)
        assert [process.returncode for process in started] == [-signal.SIGKILL] * 2

    def test_secrets_are_not_among_their_arguments(self, started, targets):
        options = {"key": "a", "secret": "never shown"}
        with surveys._Process(Reading(options, COLUMNS)) as process:
            process.send(targets[:1])
            assert process.receive() == by_threads(targets[:1])
            shown = [Path(f"/proc/{started[0].pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        assert not any(b"never shown" in one for one in shown)


def test_few_shards_start_no_process(targets, started):
    assert list(survey_all(targets, Reading({}, COLUMNS), processes=8)) == by_threads(targets)
    assert started == []
