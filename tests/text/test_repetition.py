"""Repetition: the longest sequence of words that a text has twice, and its compression."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.text.error_rates import Repetition, compression, longest_repetition


def slowly(words: list[str]) -> Repetition:
    """Find the longest repetition by comparing all sequences."""
    for length in range(len(words) // 2, 0, -1):
        most = max(_times(words, words[first : first + length]) for first in range(len(words) - length + 1))
        if most > 1:
            return Repetition(length, most)
    return Repetition(0, 0)


def _times(words: list[str], sequence: list[str]) -> int:
    found = place = 0
    while place <= len(words) - len(sequence):
        is_there = words[place : place + len(sequence)] == sequence
        found, place = found + is_there, place + (len(sequence) if is_there else 1)
    return found


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_the_longest_repetition_is_that_of_a_comparison_of_all_sequences(words):
    assert longest_repetition(words) == slowly(words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0)),
        ("one two three", (0, 0)),
        ("one one", (1, 2)),
        ("thank you thank you thank you", (2, 3)),
        ("thank you for watching thank you for watching and more", (4, 2)),
        (" ".join(["so"] * 1001), (500, 2)),
    ],
)
def test_repetitions_do_not_overlap(text, expected):
    assert longest_repetition(text.split()) == expected


def test_a_text_in_a_loop_compresses_better_than_one_that_was_said():
    said = "he should make inquiries as to symptoms and time at which food or medicine was last taken"
    assert compression("") == 0
    assert compression("one") < 1 < compression(said) < 1.5
    assert compression("thank you " * 20) > 6
