"""Speed of runs from receipts: over time, by actor, and for any number of pieces and any clocks."""

import re

import numpy as np
import pytest

from raysp.labelling.reports.throughput import (
    MOST_INTERVALS,
    MOST_SHOWN,
    actors_table,
    charts_of,
    runs_table,
    started,
    work_of_runs,
)
from raysp.pages.page_tables import MOST_RUNS
from raysp.sink.receipts import Counts, PieceReceipt, pieces_by_run
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore

RUN = "20260102T030405000000Z-abcdef"
START = started(RUN)


def a_piece(end: float, *, busy: float = 1.0, waited: float = 0.0, audio: float = 10.0, actor: str = "a"):
    counts = Counts(2, 1, 2, audio, 80, 100, busy_seconds=busy, wait_seconds=waited)
    return PieceReceipt("s", 0, 1, counts, actor, START + end)


def the_work(*pieces: PieceReceipt):
    return work_of_runs((RUN, piece) for piece in pieces)[RUN]


def test_the_id_of_a_run_begins_with_its_time():
    assert started(RunEntry.now().run_id) > START > 1.7e9
    assert started("somebody-else") == 0.0


def test_a_run_has_its_sums_and_speed():
    work = the_work(a_piece(2.0), a_piece(5.0, waited=1.0, actor="b"))
    assert (work.counts.rows, work.counts.audio_seconds, work.wall_seconds, work.rtfx) == (4, 20.0, 5.0, 4.0)
    assert work.counts.wait_share == pytest.approx(1 / 3)
    assert work.counts.padding_efficiency == 0.8
    assert [row[0] for row in actors_table(work).rows] == ["a", "b"]


def test_audio_is_spread_over_the_time_in_which_it_was_labelled():
    work = the_work(a_piece(4.0, busy=2.0, waited=1.0))
    np.testing.assert_allclose(work.timeline.amounts[:5, 0], [0, 0, 5, 5, 0])
    np.testing.assert_allclose(work.timeline.amounts[:5, 2], [0, 1, 0, 0, 0])


@pytest.mark.parametrize("seconds", [100.0, 10_000.0, 1e6])
def test_runs_of_any_length_keep_their_sums_in_few_intervals(seconds):
    ends = np.linspace(1.0, seconds, 500)
    work = the_work(*(a_piece(end, waited=0.5) for end in ends))
    assert work.timeline.amounts.shape == (MOST_INTERVALS, 3)
    np.testing.assert_allclose(work.timeline.amounts[:, :2].sum(0), [5000, 500], rtol=1e-9)
    shown_ends, amounts = work.timeline.shown(work.counts.blocks)
    assert len(shown_ends) <= MOST_SHOWN
    assert shown_ends[-1] >= seconds
    assert amounts[:, 0].sum() == pytest.approx(5000)
    assert [chart.title for chart in charts_of(work)] == ["Throughput", "Waiting for input"]


@pytest.mark.parametrize("end", [float("nan"), float("inf"), 1e300, -1e300, -5.0])
def test_strange_clocks_do_no_harm(end):
    work = the_work(a_piece(end), a_piece(3.0))
    assert work.timeline.amounts[:, 0].sum() <= 20.0
    charts_of(work)


def test_a_piece_without_any_time_counts():
    assert the_work(a_piece(1.5, busy=0.0)).timeline.amounts[1, 0] == 10.0


def test_only_the_last_runs_are_kept_and_all_are_counted(tmp_path):
    store = LocalStore(tmp_path)
    entries = [RunEntry.now() for _ in range(MOST_RUNS + 2)]
    for entry in entries:
        log = RunLog(store, entry.run_id)
        log.add(a_piece(1.0))
        log.flush()
    work = work_of_runs(pieces_by_run(store))
    assert [*work] == [entry.run_id for entry in entries[-MOST_RUNS:]]
    table = runs_table(work, entries)
    assert (len(table.rows), table.left_out) == (MOST_RUNS, "2 earlier runs")
    assert {row[2] for row in table.rows} == {"2"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", row[0]) for row in table.rows)


def test_a_run_of_many_actors_or_one_has_no_table_of_them():
    assert actors_table(the_work(a_piece(1.0))) is None
    assert actors_table(the_work(*(a_piece(1.0, actor=str(number)) for number in range(40)))) is None
