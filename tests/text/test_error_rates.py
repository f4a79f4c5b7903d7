"""Texts by rules, their errors against references, and their repetition."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.text.error_rates import Repetition, TextRules, compression, count_errors, edits, longest_repetition

texts = st.lists(st.sampled_from(["one", "two", "three"]), max_size=5).map(" ".join)


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (TextRules(), "  Hello,\tWorld \n", "Hello, World"),
        (TextRules("upper"), "straße", "STRASSE"),
        (TextRules("lower", "letters"), "“Don’t!” – it's 5 o'clock, 'so'", "don't it's 5 o'clock so"),
        (TextRules(keep="letters"), "rock 'n' roll", "rock n roll"),
        (TextRules("lower", "letters"), "Çok güzel; İstanbul’da.", "çok güzel i\u0307stanbul'da"),
        (TextRules(keep="letters"), "हिन्दी, में", "हिन्दी में"),
        (TextRules(keep="letters"), "र्\u200dया क्\u200cष می\u200cخواهم", "र्या क्ष می خواهم"),
        (TextRules(keep="letters"), "cafe\u0301", "caf\u00e9"),
        (TextRules("lower", "abc"), "A-B c d", "a b c"),
    ],
)
def test_texts_by_rules(rules, text, expected):
    assert rules(text) == expected


@pytest.mark.parametrize("language", ["tr", "az"])
def test_dotted_and_dotless_i_are_pairs_by_the_rules_of_turkish(language):
    for lower, upper in (("istanbul ısparta", "İSTANBUL ISPARTA"), ("millî îman", "MİLLÎ ÎMAN"), ("ğüşöç", "ĞÜŞÖÇ")):
        for text in (lower, upper, unicodedata.normalize("NFD", upper), unicodedata.normalize("NFD", lower)):
            assert TextRules("lower", language=language)(text) == lower
            assert TextRules("upper", language=language)(text) == upper
        assert TextRules("keep", language=language)(upper) == upper


@given(
    st.text() | st.text("iıIİ\u0307\u0323\u0308a "),
    st.sampled_from(["keep", "lower", "upper"]),
    st.sampled_from(["all", "letters", "abc "]),
    st.sampled_from([None, "tr"]),
)
def test_a_text_by_the_rules_stays_as_it_is(text, case, keep, language):
    rules = TextRules(case, keep, language)
    once = rules(text)
    assert rules(once) == once
    assert once == " ".join(once.split())


def test_rows_are_counted_separately_also_beyond_one_batch():
    found = count_errors(["a b"] * 10_002, ["a b"] * 9_999 + ["a", "", "x y c"])
    assert not found[:9_999, :3].any()
    assert found[9_999:].tolist() == [[0, 0, 1, 2], [0, 0, 2, 2], [2, 1, 0, 2]]


@settings(deadline=None, max_examples=60)
@given(texts, texts)
def test_edits_lead_from_the_reference_to_the_hypothesis(reference, hypothesis):
    words, made, place = reference.split(), [], 0
    for edit in edits(reference, hypothesis):
        assert words[edit.start : edit.start + len(edit.reference.split())] == edit.reference.split()
        made += [*words[place : edit.start], *edit.hypothesis.split()]
        place = edit.start + len(edit.reference.split())
    assert [*made, *words[place:]] == hypothesis.split()


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


def test_a_text_in_a_loop_repeats_half_of_its_words_and_compresses_better_than_one_that_was_said():
    assert longest_repetition(["so"] * 1001) == (500, 2)
    said = "he should make inquiries as to symptoms and time at which food or medicine was last taken"
    assert compression("") == 0
    assert compression("one") < 1 < compression(said) < 1.5
    assert compression("thank you " * 20) > 6
