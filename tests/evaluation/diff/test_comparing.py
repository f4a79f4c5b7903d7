"""Comparisons of columns on small tables."""

import jiwer
import pyarrow as pa
import pytest

from raysp.evaluation.diff.column_comparison import Both, comparer
from raysp.evaluation.diff.compared_columns import Compared
from raysp.evaluation.diff.diff_result import ClassChange, ColumnDifference
from raysp.evaluation.scores import Columns
from raysp.labelling.finished.label_columns import kind_of
from raysp.text.error_rates import normalisation

SECONDS = 0.5


def table(rows: int, **columns: object) -> pa.Table:
    return pa.table(
        {"id": [f"u{row}" for row in range(rows)], "row": list(range(rows)), "seconds": [SECONDS] * rows, **columns}
    )


def compared(a: pa.Table, b: pa.Table, name: str, *, worst: int = 10, batch: int = 2, **options: object):
    """Compare a column in batches of rows."""
    references = options.get("references")
    kind = kind_of(a.schema, name)
    column = Compared(name, kind, f"{name}_scores" if kind == "class" else None)
    one = comparer(column, normalisation("letters"), worst, "text" if references else None)
    for first in range(0, a.num_rows, batch):
        part = slice(first, first + batch)
        one.add(Both("s", a.slice(first, batch), b.slice(first, batch), references[part] if references else None))
    return one.result(Columns(seconds=[SECONDS] * a.num_rows))


def value(found: ColumnDifference, metric: str) -> float | None:
    return found.scores.metrics[metric].value


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("pred_text", pa.string(), "text"),
        ("pred_label", pa.string(), "class"),
        ("language", pa.string(), "value"),
        ("pred_score", pa.float32(), "number"),
        ("num_words", pa.int32(), "number"),
        ("is_loud", pa.bool_(), "value"),
        ("pred_label_scores", pa.list_(pa.float32()), "value"),
        ("pred_segments", pa.list_(pa.struct([("start", pa.float64())])), "value"),
    ],
)
def test_a_column_is_compared_by_its_type_and_name(name, kind, expected):
    types = {"pred_label_scores": pa.float32(), name: kind}
    assert kind_of(pa.schema(list(types.items())), name) == expected


class TestTexts:
    A = ("one two three", "four", "", "Six seven!", "eight nine")
    B = ("one too three", "four", "five", "six seven", "eight")
    TEXTS = ("one two three", "for", None, "six seven", "eight nine")

    @pytest.fixture
    def found(self):
        return compared(
            table(5, pred_text=self.A), table(5, pred_text=self.B), "pred_text", references=self.TEXTS, worst=2
        )

    def test_rates_are_those_of_jiwer_over_all_rows(self, found):
        a, b = ([text.lower().strip("!") for text in texts] for texts in (self.A, self.B))
        assert value(found, "wer") == pytest.approx(jiwer.process_words(a, b).wer)
        assert value(found, "cer") == pytest.approx(jiwer.process_characters(a, b).cer)

    def test_agreement_is_the_share_of_rows_with_equal_texts_after_normalisation(self, found):
        assert (value(found, "agreement"), found.scores.counts["equal"], found.scores.rows) == (0.4, 2, 5)

    def test_both_are_compared_with_the_references_that_there_are(self, found):
        texts, a, b = (
            [text.lower().strip("!") for text, known in zip(texts, self.TEXTS, strict=True) if known is not None]
            for texts in ([text or "" for text in self.TEXTS], self.A, self.B)
        )
        rates = {name: one.value for name, one in found.against.scores.metrics.items()}
        assert (found.against.column, found.against.scores.rows) == ("text", 4)
        assert rates["wer_a"] == pytest.approx(jiwer.wer(texts, a))
        assert rates["wer_b"] == pytest.approx(jiwer.wer(texts, b))
        assert rates["wer_change"] == pytest.approx(jiwer.wer(texts, b) - jiwer.wer(texts, a))
        assert rates["cer_change"] == pytest.approx(jiwer.cer(texts, b) - jiwer.cer(texts, a))

    def test_the_worst_rows_of_all_batches_are_kept(self, found):
        assert [(row.id, row.row, row.errors) for row in found.worst] == [("u2", 2, 1), ("u4", 4, 1)]
        assert found.worst[1].edits[0].reference == "nine"

    def test_no_worst_row_is_kept_if_none_is_asked_for(self):
        assert compared(table(5, pred_text=self.A), table(5, pred_text=self.B), "pred_text", worst=0).worst == ()

    def test_without_references_there_is_no_comparison_with_them(self):
        a = table(1, pred_text=["one"])
        assert compared(a, a, "pred_text").against is None
        assert compared(a, a, "pred_text", references=[None]).against is None

    def test_an_interval_of_paired_rows_is_narrower_than_the_rates_themselves(self):
        """Both labellings have the same errors in every second row, and B one more."""
        texts = ["one two"] * 20
        a = ["one", "one two"] * 10
        b = ["one", "one two"] * 9 + ["one", "one"]
        metrics = compared(
            table(20, pred_text=a), table(20, pred_text=b), "pred_text", references=texts
        ).against.scores.metrics
        widths = {name: one.high - one.low for name, one in metrics.items()}
        assert widths["wer_change"] < widths["wer_a"]
        assert metrics["wer_change"].value == pytest.approx(1 / 40)

    @pytest.mark.parametrize(
        ("a", "b", "verdict"),
        [
            ("one", "one two", "-50.00% (-50.00% to -50.00%): B is better"),
            ("one two", "one", "+50.00% (+50.00% to +50.00%): A is better"),
            ("one two", "one two", "+0.00% (+0.00% to +0.00%): the interval includes 0, so neither is clearly better"),
        ],
    )
    def test_the_verdict_is_that_of_the_interval(self, a, b, verdict):
        sides = (table(3, pred_text=[text] * 3) for text in (a, b))
        assert compared(*sides, "pred_text", references=["one two"] * 3).against.verdict == verdict


class TestClasses:
    @pytest.fixture
    def found(self):
        a = table(5, label=["cat", "cat", "dog", None, "dog"], label_scores=[0.9, 0.8, 0.7, 0.6, 0.5])
        b = table(5, label=["dog", "dog", "cat", None, "dog"], label_scores=[0.6, 0.7, 0.9, 0.6, 0.5])
        return compared(a, b, "label", worst=2)

    def test_changes_are_counted_by_pair_the_most_frequent_first(self, found):
        assert found.changes == (ClassChange("cat", "dog", 2), ClassChange("dog", "cat", 1))
        assert (value(found, "agreement"), found.scores.counts["equal"]) == (0.4, 2)

    def test_the_worst_rows_are_the_changes_of_which_both_were_surest(self, found):
        assert [(row.row, row.reference, row.hypothesis) for row in found.worst] == [
            (1, "cat", "dog"),
            (2, "dog", "cat"),
        ]
        assert [row.score for row in found.worst] == pytest.approx([0.7, 0.7])


def test_numbers_are_equal_or_not():
    a, b = (table(4, pred_score=scores) for scores in ([0.5, 0.5, 0.5, None], [1.0, 0.5, 0.5, 1.0]))
    found = compared(a, b, "pred_score")
    assert (value(found, "agreement"), found.facts["agreement"].split(": ")[1]) == (0.5, "2 of 4 rows")


def test_words_are_equal_if_their_texts_and_times_are():
    word = {"word": "one", "start": 0.0, "end": 0.5, "score": 0.9}
    rows = [[word], [word], [word], None, []]
    others = [[word | {"score": 0.8}], [word | {"end": 0.6}], [word | {"word": "two"}], None, None]
    found = compared(table(5, pred_words=rows), table(5, pred_words=others), "pred_words")
    assert (value(found, "agreement"), found.facts["agreement"].split(": ")[1]) == (0.4, "2 of 5 rows")


def test_other_values_are_equal_or_not():
    segments = [[{"label": "a", "start": 0.0}], [], [{"label": "a", "start": 0.5}]]
    a, b = table(3, segments=segments), table(3, segments=[segments[0], segments[0], segments[2]])
    found = compared(a, b, "segments")
    assert (value(found, "agreement"), found.worst, found.changes) == (pytest.approx(2 / 3), (), ())
    assert found.facts["agreement"].endswith("2 of 3 rows")
