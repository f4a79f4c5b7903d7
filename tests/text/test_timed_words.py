"""Words of a text with the times of its characters."""

import math

from raysp.text.times import Span, timed_words


def spans(*texts: str) -> list[Span]:
    """Return spans of one second each."""
    return [Span(text, float(place), place + 1.0, 0.5) for place, text in enumerate(texts)]


def test_words_have_the_times_of_their_characters():
    assert timed_words("ab c", spans("a", "b", "c")) == [Span("ab", 0, 2, 0.5), Span("c", 2, 3, 0.5)]


def test_pieces_of_several_letters_belong_to_the_word_in_which_they_begin():
    assert [(one.text, one.start, one.end) for one in timed_words("one two", spans(" on", "e", " two"))] == [
        ("one", 0, 2),
        ("two", 2, 3),
    ]


def test_a_text_that_differs_from_its_characters_keeps_all_words():
    found = timed_words("a b cd", spans("xyz", "w"))
    assert [one.text for one in found] == ["a", "b", "cd"]
    assert [math.isfinite(one.start) for one in found] == [True, False, True]


def test_without_characters_or_text_there_are_no_words():
    assert timed_words("a b", []) == timed_words(" ", spans("a")) == []
