"""Error rates of texts: pooled, by groups, with intervals, and the worst rows."""

import numpy as np
import pytest

from raysp.evaluation.recognition import compare_texts
from raysp.evaluation.scores import Columns, band

REFERENCES = ["one two three four", "five six", "", "Seven, eight"]
HYPOTHESES = ["one too three", "five six", "nine ten", "seven eight"]
# Errors: a substitution and a deletion of 4 words; none of 2; two insertions; none of 2.


def test_rates_divide_all_errors_by_all_words_of_the_references():
    scores = compare_texts(REFERENCES, HYPOTHESES).scores
    assert scores.metrics["wer"].value == 4 / 8
    assert scores.metrics["cer"].value == (1 + 5 + 8) / (18 + 8 + 0 + 11)
    assert scores.counts == {
        "words": 8,
        "substitutions": 1,
        "insertions": 2,
        "deletions": 1,
        "characters": 37,
        "character_substitutions": 1,
        "character_insertions": 8,
        "character_deletions": 5,
    }
    assert (scores.rows, scores.seconds) == (4, None)


def test_intervals_hold_the_rate_and_are_the_same_every_time():
    references, hypotheses = ["one two"] * 200, ["one two"] * 150 + ["one too"] * 50
    first, again = (compare_texts(references, hypotheses).scores.metrics["wer"] for _ in range(2))
    assert first == again
    assert first.value == 0.125
    spread = 1.96 * np.std([0.0] * 150 + [0.5] * 50) / np.sqrt(200)
    assert (first.low, first.high) == pytest.approx((0.125 - spread, 0.125 + spread), abs=0.006)


def test_rows_without_a_unit_are_units_of_their_own():
    references, hypotheses = ["one", "two", "three"], ["one", "x", "three"]
    alone = compare_texts(references, hypotheses).scores
    assert compare_texts(references, hypotheses, Columns(over=[None] * 3)).scores == alone
    assert compare_texts(references, hypotheses, Columns(over=["a"] * 3)).scores.metrics["wer"].low is None


@pytest.mark.parametrize("rows", [[], ["", ""]])
def test_without_a_reference_word_the_rates_are_undefined(rows):
    found = compare_texts(rows, ["a"] * len(rows), Columns(by={"x": [1] * len(rows)}))
    assert [one.value for one in found.scores.metrics.values()] == [None, None]
    assert found.scores.counts["insertions"] == len(rows)
    assert found.scores.metrics["wer"].percentage == "-"


def test_groups_have_the_scores_of_their_rows_the_worst_first_and_null_is_a_group():
    columns = Columns(by={"speaker": ["a", None, "a", None], "take": [1, 2, 3, float("nan")]})
    found = compare_texts(REFERENCES, HYPOTHESES, columns).by
    assert [(group.value, group.scores.rows, group.scores.metrics["wer"].value) for group in found["speaker"]] == [
        ("a", 2, 1.0),
        (None, 2, 0.0),
    ]
    alone = compare_texts([REFERENCES[1], REFERENCES[3]], [HYPOTHESES[1], HYPOTHESES[3]]).scores
    assert found["speaker"][1].scores == alone
    # Without reference words the rate of the third row is undefined: it comes last.
    assert [group.value for group in found["take"]] == [1, 2, None, 3]


def test_bands_of_duration_are_in_order_and_have_the_seconds_of_their_rows():
    columns = Columns(seconds=[4.0, 0.5, 31.0, 2.0])
    found = compare_texts(REFERENCES, HYPOTHESES, columns)
    assert [(group.value, group.scores.rows, group.scores.seconds) for group in found.by["seconds"]] == [
        ("<1", 1, 0.5),
        ("2-5", 2, 6.0),
        (">=30", 1, 31.0),
    ]
    assert found.scores.seconds == 37.5


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(0, "<1"), (1, "1-2"), (29.9, "20-30"), (30, ">=30")],
)
def test_a_band_begins_with_its_lower_end(seconds, name):
    assert band(seconds) == name


def test_the_worst_rows_have_the_most_errors_with_the_shortest_references_first():
    found = compare_texts(REFERENCES, HYPOTHESES, worst=2).worst
    assert [(one.index, one.errors, one.reference, one.hypothesis) for one in found] == [
        (2, 2, "", "nine ten"),
        (0, 2, "one two three four", "one too three"),
    ]
    assert [edit.kind for edit in found[1].edits] == ["substitute", "delete"]
