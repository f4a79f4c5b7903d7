"""Figures of many rows: memory that does not grow with them, and rates and intervals that stay those of all rows."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.recognition import TextMeasures
from raysp.evaluation.scores import Columns, score
from raysp.labelling.reports import label_figures, label_report, reservoirs, row_error_rates
from raysp.labelling.reports.label_figures import FEW_VALUES, MOST_TYPES, Chosen, Rows
from raysp.labelling.reports.reservoirs import Sample, Values
from raysp.labelling.reports.row_error_rates import Errors, Groups, Measured
from raysp.labelling.reports.throughput import RunWork
from raysp.sink.receipts import Counts


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
    def test_few_rows_have_the_scores_of_a_bootstrap_over_rows(self):
        counts = many_errors(300)
        found = Errors()
        for part in np.split(counts, 3):
            found.add(part)
        assert found.scores() == measured(counts)
        assert not found.is_bundled

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


class TestGroups:
    def test_values_after_many_others_are_one_group(self):
        groups = Groups(most=2)
        values = ["a", "b", "c", "d", "a", None]
        statuses = ["ok"] * 5 + ["error"]
        groups.add(values, Measured(statuses, np.ones(6), np.array([0, 2]), many_errors(2)))
        assert {key: one.statuses.total() for key, one in groups.found.items()} == {"a": 2, "b": 1, Groups.others: 3}
        assert groups.has_others
        assert [one.errors.rows for one in groups.found.values()] == [1, 0, 1]


class TestSample:
    def test_few_numbers_are_all_kept_and_those_that_are_not_finite_do_not_count(self):
        sample = Sample()
        sample.add(np.array([1.0, np.nan, np.inf, 2.0]))
        assert (sorted(sample.values), sample.seen, sample.note) == ([1.0, 2.0], 2, "")

    def test_of_many_numbers_a_uniform_sample_is_kept(self):
        sample = Sample(most=1000)
        for first in range(0, 100_000, 5000):
            sample.add(np.arange(first, first + 5000, dtype=np.float64))
        assert len(sample.values) == 1000
        assert sample.note == "a random sample of 1,000 of 100,000 rows"
        np.testing.assert_allclose(np.quantile(sample.values, [0.25, 0.5, 0.75]), [25e3, 50e3, 75e3], atol=5e3)

    def test_values_after_many_others_are_counted_together(self, monkeypatch):
        monkeypatch.setattr(reservoirs, "MOST_VALUES", 2)
        values = Values()
        values.add(["a", "b", "b"])
        values.add(["c", "a", "d", "d"])
        assert (values.counts, values.others) == ({"a": 2, "b": 2}, 3)


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


CHOSEN = Chosen("pred_text", "text", ("pred_score",), ("pred_label",), ("speaker",), ("speaker", "language", "id"))


@pytest.mark.slow
def test_memory_does_not_grow_with_rows(monkeypatch):
    monkeypatch.setattr(reservoirs, "MOST_SAMPLED", 500)
    found = Rows(CHOSEN)
    found.durations = Sample(500)
    for first in range(0, 10_000, 1000):
        found.add("a.parquet", batch(first))
    assert found.rows == 10_000
    assert len(found.durations.values) == 500
    assert len(found.classes["pred_label"].counts) == reservoirs.MOST_VALUES
    assert len(found.problems) == MOST_TYPES + 1
    assert sum(one.rows for one in found.problems.values()) == 1000
    assert max(len(one.examples) for one in found.problems.values()) == label_figures.MOST_EXAMPLES
    assert len(found.worst) == label_figures.MOST_WORST
    assert len(found.errors._sums) == row_error_rates.MOST_UNITS
    assert max(len(one.found) for one in found.groups.values()) == row_error_rates.MOST_GROUPS + 1


def test_columns_with_few_values_make_groups():
    found = Rows(CHOSEN)
    found.add("a.parquet", batch(0))
    assert [*found.groups] == ["seconds", "pred_score", "speaker", "language"]
    assert set(found.groups["language"].found) == {"en", "de"}
    assert len(found.groups["language"].found) <= FEW_VALUES
    bands = {name: one.statuses.total() for name, one in found.groups["seconds"].found.items()}
    assert sum(bands.values()) == 1000
    assert [*bands] == ["<1", "1-2", "2-5", "5-10", "10-20", "20-30", ">=30"]


def test_rows_are_grouped_by_their_score_from_the_edges_on():
    scores = [0.0, -0.0099, -0.01, -0.05, -0.07, -1.0, -9.0, float("nan")]
    assert label_figures._score_bands(np.array(scores)) == [
        *["above -0.01"] * 2, "-0.05 to -0.01", "-0.1 to -0.05", "-0.1 to -0.05", *["-1 and below"] * 2, None
    ]  # fmt: skip


def test_texts_of_a_book_are_not_compared(monkeypatch):
    monkeypatch.setattr(label_figures, "MOST_COMPARED", 4)
    found = Rows(CHOSEN)
    found.add("a.parquet", batch(0))
    assert (found.errors.rows, found.too_long) == (0, 900)


@pytest.mark.parametrize(("seconds", "figure"), [(2.0, "200 x"), (800.0, "0.5 x")])
def test_a_page_leads_with_the_speed_of_the_last_run(seconds, figure):
    status, last = (
        SimpleNamespace(rows_committed=5, ok=3),
        RunWork(Counts(audio_seconds=400.0), start=1.0, end=1.0 + seconds),
    )
    verdict = label_report._verdict(status, Rows(CHOSEN), last)
    assert [(one.figure, one.name) for one in verdict] == [("2", "rows without a label"), (figure, "real time")]
