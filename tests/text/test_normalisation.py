"""Rules for texts, and vocabularies of their characters."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.text.error_rates import TextRules
from raysp.text.targets import build, count_characters, outside


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (TextRules(), "  Hello,\tWorld \n", "Hello, World"),
        (TextRules("lower"), "Hello, World", "hello, world"),
        (TextRules("upper"), "straße", "STRASSE"),
        (TextRules("lower", "letters"), "“Don’t!” – it's 5 o'clock, 'so'", "don't it's 5 o'clock so"),
        (TextRules(keep="letters"), "rock 'n' roll", "rock n roll"),
        (TextRules("lower", "letters"), "Çok güzel; İstanbul’da.", "çok güzel i\u0307stanbul'da"),
        (TextRules(keep="letters"), "हिन्दी, में", "हिन्दी में"),
        (TextRules(keep="letters"), "र्\u200dया क्\u200cष می\u200cخواهم", "र्या क्ष می خواهم"),
        (TextRules(keep="letters"), "cafe\u0301", "caf\u00e9"),
        (TextRules("lower", "abc"), "A-B c d", "a b c"),
        (TextRules(keep="letters"), "... —", ""),
    ],
)
def test_texts_by_rules(rules, text, expected):
    assert rules(text) == expected


@pytest.mark.parametrize("language", ["tr", "az"])
@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("istanbul ısparta", "İSTANBUL ISPARTA"),
        ("diyarbakır", "DİYARBAKIR"),
        ("millî îman", "MİLLÎ ÎMAN"),
        ("ğüşöç", "ĞÜŞÖÇ"),
    ],
)
def test_dotted_and_dotless_i_are_pairs_by_the_rules_of_turkish(language, lower, upper):
    for text in (lower, upper, unicodedata.normalize("NFD", upper), unicodedata.normalize("NFD", lower)):
        assert TextRules("lower", language=language)(text) == lower
        assert TextRules("upper", language=language)(text) == upper
    assert TextRules("keep", language=language)(upper) == upper


@given(st.text("iıIİ\u0307\u0323\u0308a "), st.sampled_from(["lower", "upper"]))
def test_a_text_by_the_rules_of_turkish_stays_as_it_is(text, case):
    rules = TextRules(case, language="tr")
    assert rules(rules(text)) == rules(text)


@given(st.text(), st.sampled_from(["keep", "lower", "upper"]), st.sampled_from(["all", "letters", "abc "]))
def test_a_text_by_the_rules_stays_as_it_is(text, case, keep):
    rules = TextRules(case, keep)
    once = rules(text)
    assert rules(once) == once
    assert once == " ".join(once.split())


def test_a_vocabulary_has_the_characters_of_texts_after_the_special_tokens():
    counts = count_characters(["one two", "two three"])
    vocabulary = build(counts)
    assert list(vocabulary)[:3] == ["<pad>", "<unk>", "|"]
    assert sorted(vocabulary.values()) == [*range(len(vocabulary))]
    assert {*vocabulary} == {"<pad>", "<unk>", "|", *"onetwothree"}
    assert build(counts) == build(count_characters(["two three", "one two"]))


def test_characters_outside_a_vocabulary_are_counted():
    counts = count_characters(["a-b", "a b-c"])
    assert outside(counts, {"|": 0, "a": 1}) == {"-": 2, "b": 2, "c": 1}
