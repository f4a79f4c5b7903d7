"""Figures of many rows: memory that does not grow with them, and rates and intervals that stay those of all rows."""

import numpy as np
import pyarrow as pa
import pytest

from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.recognition import TextMeasures
from raysp.evaluation.scores import Columns, score
from raysp.labelling.reports import label_figures, row_error_rates
from raysp.labelling.reports.label_figures import FEW_VALUES, MOST_TYPES, Chosen, Rows, Sample
from raysp.labelling.reports.label_report import Runs
from raysp.labelling.reports.row_error_rates import OTHERS, Errors, Groups, Measured
from raysp.sink.receipts import Counts, PieceReceipt
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore


def many_errors(number: int) -> np.ndarray:
    """Return counts of rows of five words, of which a fifth is wrong."""
    random = np.random.default_rng(1)
    counts = np.zeros((number, 8), np.int64)
    counts[:, 0] = random.binomial(5, 0.2, number)
    counts[:, 3] = 5
    counts[:, 7] = 20
    return counts


def measured(counts: np.ndarray):
    return score(TextMeasures(counts[:, :4], counts[:, 4:]), len(counts), Columns(), Bootstrap())


class TestErrors:
    @pytest.mark.slow
    def test_many_rows_keep_their_rate_and_about_their_interval(self):
        counts = many_errors(20_000)
        found = Errors()
        for part in np.split(counts, 10):
            found.add(part)
        ours, theirs = found.scores(), measured(counts)
        assert (ours.rows, ours.counts) == (20_000, theirs.counts)
        wer, expected = ours.metrics["wer"], theirs.metrics["wer"]
        assert wer.value == expected.value
        assert wer.high - wer.low == pytest.approx(expected.high - expected.low, rel=0.15)
        assert len(found._sums) == row_error_rates.MOST_UNITS


def test_values_after_many_others_are_one_group():
    groups = Groups(most=2)
    is_ok = np.array([True] * 5 + [False])
    groups.add(["a", "b", "c", "d", "a", None], Measured(is_ok, np.ones(6), np.array([0, 2]), many_errors(2)))
    assert {key: (one.rows, one.ok) for key, one in groups.items()} == {"a": (2, 2), "b": (1, 1), OTHERS: (3, 2)}
    assert [one.errors.rows for one in groups.values()] == [1, 0, 1]


class TestSample:
    def test_few_numbers_are_all_kept_and_those_that_are_not_finite_do_not_count(self):
        sample = Sample()
        sample.add(np.array([1.0, np.nan, np.inf, 2.0]))
        assert (sorted(sample.values), sample.seen) == ([1.0, 2.0], 2)

    def test_of_many_numbers_a_uniform_sample_is_kept(self):
        sample = Sample(most=1000)
        for first in range(0, 100_000, 5000):
            sample.add(np.arange(first, first + 5000, dtype=np.float64))
        assert (len(sample.values), sample.seen) == (1000, 100_000)
        np.testing.assert_allclose(np.quantile(sample.values, [0.25, 0.5, 0.75]), [25e3, 50e3, 75e3], atol=5e3)


def batch(first: int, number: int = 1000) -> pa.Table:
    """Return rows with new ids, texts, speakers and reasons in each batch."""
    ids = [f"r{row}" for row in range(first, first + number)]
    is_ok = [row % 10 > 0 for row in range(number)]
    kinds = [None if ok else f"kind_{first + row}" for row, ok in enumerate(is_ok)]
    return pa.table(
        {
            "id": ids,
            "row": list(range(first, first + number)),
            "seconds": np.linspace(0.1, 40, number),
            "status": ["ok" if ok else "error" for ok in is_ok],
            "error_type": pa.array(kinds, pa.string()),
            "error_message": pa.array(kinds, pa.string()),
            "pred_text": [f"one {row % 3}" for row in range(number)],
            "text": ["one 1"] * number,
            "pred_score": np.linspace(-1, 0, number),
            "pred_label": ids,
            "speaker": ids,
            "language": ["en", "de"] * (number // 2),
        }
    )


CHOSEN = Chosen("pred_text", "text", ("pred_score",), ("speaker", "pred_label"), ("speaker", "language", "id"))


@pytest.mark.slow
def test_memory_does_not_grow_with_rows():
    found = Rows(CHOSEN)
    found.samples = {name: Sample(500) for name in found.samples}
    for first in range(0, 10_000, 1000):
        found.add("a.parquet", batch(first))
    assert sum(one.rows for one in found.groups["seconds"].values()) == 10_000
    assert {len(one.values) for one in found.samples.values()} == {500}
    assert len(found.examples) == MOST_TYPES
    assert max(map(len, found.examples.values())) <= label_figures.MOST_EXAMPLES
    assert len(found.worst) == label_figures.MOST_WORST
    assert len(found.errors._sums) == row_error_rates.MOST_UNITS
    assert max(map(len, found.groups.values())) == row_error_rates.MOST_GROUPS + 1


def test_columns_with_few_values_make_groups():
    found = Rows(CHOSEN)
    found.add("a.parquet", batch(0))
    assert [*found.groups] == ["seconds", "speaker", "pred_label", "language"]
    assert set(found.groups["language"]) == {"en", "de"}
    assert len(found.groups["language"]) <= FEW_VALUES
    bands = {name: one.rows for name, one in found.groups["seconds"].items()}
    assert sum(bands.values()) == 1000
    assert [*bands] == ["<1", "1-2", "2-5", "5-10", "10-20", "20-30", ">=30"]


def test_texts_of_a_book_are_not_compared(monkeypatch):
    monkeypatch.setattr(label_figures, "MOST_COMPARED", 4)
    found = Rows(CHOSEN)
    found.add("a.parquet", batch(0))
    assert (found.errors.rows, found.too_long) == (0, 900)


class TestRuns:
    @staticmethod
    def begun(store: LocalStore, run_id: str, *ends: float) -> RunEntry:
        """Return a run of the first second of 2026, with pieces of ten seconds of audio that end at some times."""
        entry = RunEntry(run_id, "2026-01-01T00:00:01+00:00", {"raysp": "1"}, "host", "raysp run")
        log = RunLog(store, run_id)
        for end in ends:
            log.add(PieceReceipt("s", 0, 1, Counts(rows=2, blocks=1, audio_seconds=10.0), "a", end))
        log.flush()
        return entry

    @pytest.mark.parametrize("end", [-5.0, 1e12])
    def test_strange_clocks_give_no_speed(self, tmp_path, end):
        entry = self.begun(store := LocalStore(tmp_path), "r1", end)
        assert Runs(store, [entry]).figures(entry) == ("2", "0:10", "-", "-")
