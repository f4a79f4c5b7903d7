"""Texts in tokens of a CTC head, and words of tokens."""

import pytest

from raysp.text.spelling import PhonemeSpelling, Spelling
from raysp.text.token_words import words_of_tokens

UPPER = {letter: number for number, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ'", 5)}
LOWER = {letter.lower(): number for letter, number in UPPER.items()}
DELIMITER = 4


def tokens(text: str, vocabulary=UPPER) -> str:
    letters = {number: letter for letter, number in vocabulary.items()} | {DELIMITER: "|"}
    return "".join(letters[index] for index in Spelling(vocabulary, DELIMITER)(text).target().ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two words", "TWO|WORDS"),
        ("  two\twords\n", "TWO|WORDS"),
        ("Well, yes!", "WELL|YES"),
        ("a - b", "A|B"),
        ("café naïve", "CAFE|NAIVE"),
        ("cafe\u0301", "CAFE"),
        ("don’t don`t", "DON'T|DON'T"),
        ("Straße", "STRASSE"),
        ("ﬁne ＯＫ", "FINE|OK"),
        ("1 | 2", ""),
        ("", ""),
    ],
)
def test_characters_take_the_form_that_the_vocabulary_knows(text, expected):
    assert tokens(text) == expected
    assert tokens(text, LOWER) == expected.lower()


TURKISH = "ABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZ"


@pytest.mark.parametrize("language", ["tr", "az"])
def test_dotted_and_dotless_i_are_pairs_in_turkish(language):
    upper = {letter: number for number, letter in enumerate(TURKISH, 5)}
    lower = {letter: number for number, letter in enumerate("abcçdefgğhıijklmnoöprsştuüvyz", 5)}

    def spelt(text: str, vocabulary: dict[str, int], of: str | None) -> str:
        letters = {number: letter for letter, number in vocabulary.items()} | {DELIMITER: "|"}
        return "".join(letters[one] for one in Spelling(vocabulary, DELIMITER, of)(text).target().ids)

    assert spelt("ısı iki IŞIK İki I\u0307ki", upper, language) == "ISI|İKİ|IŞIK|İKİ|İKİ"
    assert spelt("ISI İKİ ışık iki I\u0307KI\u0307", lower, language) == "ısı|iki|ışık|iki|iki"
    assert spelt("ISI iki", lower, None) == "isi|iki"
    assert spelt("iki ısı", UPPER, language) == "IKI|ISI"  # a vocabulary without İ


def test_tokens_of_several_characters_are_taken_whole():
    vocabulary = {"s": 5, "c": 6, "h": 7, "sch": 8, "o": 9, "n": 10}
    spelt = Spelling(vocabulary, DELIMITER)("Schon")
    assert spelt.target().ids == [8, 9, 10]
    assert [letters.text for letters in spelt.words[0].letters] == ["Sch", "o", "n"]


def test_words_keep_their_spelling_and_unknown_characters_are_counted():
    spelt = Spelling(UPPER, DELIMITER)("«Déjà vu» – 20 times, he said.")
    assert [word.text for word in spelt.words] == ["«Déjà", "vu»", "–", "20", "times,", "he", "said."]
    assert spelt.num_skipped == len("«»–20,.")
    assert [word.ids == [] for word in spelt.words] == [False, False, True, True, False, False, False]


def test_places_of_letters_lead_to_their_tokens():
    spelt = Spelling(UPPER, DELIMITER)("Ab, - ß")
    target = spelt.target().ids
    found = [[[target[index] for index in range(*one.indices(99))] for one in word] for word in spelt.places()]
    assert found == [[[5], [6], []], [[]], [[UPPER["S"], UPPER["S"]]]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at 25th", "at *th"),
        ("(25), 7.", "* *"),
        ("3.5 1,000,000", "* *"),
        ("£5 50% R&D AT&T", "* * R*D AT*T"),
        ("Жук и кот", "* * *"),
        ("well – «so…» ...", "well so"),
        ("24/7-ish", "*ish"),
    ],
)
def test_spoken_characters_without_a_token_are_wildcards_one_a_run(text, expected):
    spelt = Spelling(UPPER, DELIMITER)(text)
    wild = spelt.with_wildcards(99)
    letters = {number: letter for letter, number in UPPER.items()} | {DELIMITER: " ", 99: "*"}
    assert "".join(letters[index] for index in wild.target().ids) == expected.upper()
    assert wild.target().wildcard == 99
    assert wild.num_skipped == spelt.num_skipped
    assert [word.text for word in wild.words] == text.split()
    assert ["".join(one.text for one in word.letters) for word in wild.words] == text.split()


def test_wildcards_of_phonemes_have_spaces_within():
    spelling = PhonemeSpelling({"t": 5, "a": 6}, DELIMITER, delimiter_text="|", refuses_letters=True)
    wild = spelling("t ɕ ʑ a | a").with_wildcards(9)
    assert wild.target().ids == [5, 9, 6, DELIMITER, 6]
    assert [one.text for one in wild.words[0].letters] == ["t", "ɕ ʑ", "a"]
    assert wild.num_skipped == 2


@pytest.mark.parametrize("delimiter", [DELIMITER, None])
def test_gaps_are_around_words_alone(delimiter):
    target = Spelling(UPPER, delimiter)("- ab c").target(wildcard=True)
    assert len(target.gaps) == len(target.ids) + 1
    expected = [True, False, True, True] if delimiter is None else [True, False, True, True, True]
    assert list(target.gaps) == expected


TEXT = {1: " Hello", 2: ",", 3: " wor", 4: "ld", 5: ".", 6: " (", 7: "now", 8: ")", 9: "你", 10: "好", 11: "。"}


def decode(ids):
    return "".join(TEXT[one] for one in ids)


def test_words_have_the_punctuation_that_touches_them_and_end_with_their_last_letter():
    found = words_of_tokens([1, 2, 3, 4, 5, 6, 7, 8], decode, has_spaces=True)
    assert [tuple(word) for word in found] == [("Hello,", 0, 1), ("world.", 2, 4), ("(now)", 5, 7)]
    found = words_of_tokens([9, 10, 11], decode, has_spaces=False)
    assert [tuple(word) for word in found] == [("你", 0, 1), ("好。", 1, 2)]
    assert words_of_tokens([], decode, has_spaces=True) == []


def test_tokens_of_a_character_stay_together():
    whole = "é".encode()

    def of_bytes(ids):
        return bytes(whole[one] for one in ids).decode(errors="replace")

    assert [tuple(word) for word in words_of_tokens([0, 1], of_bytes, has_spaces=True)] == [("é", 0, 2)]
