"""Errors of texts against references: counts of each kind row by row, and the words that differ."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.text import error_rates
from raysp.text.error_rates import Edit, count_errors, edits

texts = st.lists(st.sampled_from(["one", "two", "three"]), max_size=5).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [
        ("one two three", "one two three", (0, 0, 0, 3), (0, 0, 0, 13)),
        ("one two three", "one too three", (1, 0, 0, 3), (1, 0, 0, 13)),
        ("one two three", "one three", (0, 0, 1, 3), (0, 0, 4, 13)),
        ("one three", "one two three", (0, 1, 0, 2), (0, 4, 0, 9)),
        ("", "one two", (0, 2, 0, 0), (0, 7, 0, 0)),
        ("one two", "", (0, 0, 2, 2), (0, 0, 7, 7)),
        ("", "", (0, 0, 0, 0), (0, 0, 0, 0)),
        ("été", "ete", (1, 0, 0, 1), (2, 0, 0, 3)),
    ],
)
def test_errors_are_counted_by_kind_with_the_length_of_the_reference(reference, hypothesis, words, characters):
    assert count_errors([reference], [hypothesis]).tolist() == [list(words)]
    assert count_errors([reference], [hypothesis], characters=True).tolist() == [list(characters)]


def test_rows_are_counted_separately_also_beyond_one_batch(monkeypatch):
    monkeypatch.setattr(error_rates, "ROWS_AT_ONCE", 2)
    found = count_errors(["a", "b", "", "c d", "e"], ["a", "x", "y", "c", "e"])
    assert found.tolist() == [[0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]


def test_no_rows_have_no_errors():
    assert count_errors([], []).shape == (0, 4)


def test_edits_name_the_words_and_their_place():
    assert edits("the quick brown fox runs", "a quick fox runs far") == (
        Edit("substitute", "the", "a", 0),
        Edit("delete", "brown", "", 2),
        Edit("insert", "", "far", 5),
    )
    assert edits("", "one two") == (Edit("insert", "", "one two", 0),)
    assert edits("same", "same") == ()


@settings(deadline=None, max_examples=60)
@given(texts, texts)
def test_edits_lead_from_the_reference_to_the_hypothesis(reference, hypothesis):
    words, made, place = reference.split(), [], 0
    for edit in edits(reference, hypothesis):
        assert words[edit.start : edit.start + len(edit.reference.split())] == edit.reference.split()
        made += [*words[place : edit.start], *edit.hypothesis.split()]
        place = edit.start + len(edit.reference.split())
    assert [*made, *words[place:]] == hypothesis.split()
