"""Places where lines of subtitles may break, how good each is, and how wide a text is on a screen.

Texts with spaces break there, those of Chinese and Japanese between characters where the Unicode line breaking
algorithm (UAX 14) allows it, by its classes of ideographs, opening and closing marks and small kana. Thai, Lao, Khmer
and Burmese break at spaces, since their words are found by dictionaries alone.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

WIDE = 2
"""Columns of a full-width character, of which broadcasters count two half-width ones as one."""
_IDEOGRAPHS = (
    "\u2e80-\u312f\u3190-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\uff01-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")
_WITHOUT_SPACES = re.compile(f"[{_IDEOGRAPHS}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f]")
"""Characters of scripts whose words are not divided by spaces."""
_BEFORE_ITS_CONSONANT = re.compile("[\u0e40-\u0e44\u0ec0-\u0ec4]")
_BEHIND_ITS_CONSONANT = re.compile("[\u0e30-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebd\u0ec6-\u0ecd]")
"""Vowels and marks of Thai and Lao that belong to the character after or before them."""
_HIRAGANA = re.compile("[\u3041-\u309f]")
_NOT_BEHIND = frozenset({"Ps", "Pi", "Sc"})
_NOT_BEFORE = frozenset({"Pe", "Pf", "Po", "Pd", "Pc", "Lm", "Mn", "Mc", "Me", "Cf"})
"""Categories of characters that no line ends or begins with, between ideographs."""
_QUOTES = "\"'"
_ENDS = "\"'”’»)]」』.,!?;:…–—"


class SmallWords(NamedTuple):
    """Words of a language that begin phrases."""

    leading: frozenset[str]
    """Conjunctions and prepositions: lines break before them, not after."""
    articles: frozenset[str]
    """Words that no line ends with."""


def _words(leading: str, articles: str) -> SmallWords:
    return SmallWords(frozenset(leading.split()), frozenset(articles.split()))


SMALL_WORDS = {
    "de": _words(
        "und oder aber denn weil dass wenn als ob während damit sondern an auf aus bei für gegen in mit nach ohne um "
        "unter von vor über zu zum zur durch zwischen",
        "der die das den dem des ein eine einen einem einer eines mein dein sein ihr unser kein keine",
    ),
    "en": _words(
        "and or but because that if when while so as than which who where about after against at before between by "
        "for from in into of on over through to under with without",
        "a an the my your his her its our their this these those no",
    ),
    "es": _words(
        "y e o u pero porque que si cuando mientras como aunque a al ante con contra de del desde en entre hacia hasta "
        "para por según sin sobre",
        "el la los las un una unos unas mi tu su mis tus sus",
    ),
    "fr": _words(
        "et ou mais car parce que si quand comme lorsque puisque qui dont où à au aux avec chez contre dans de des du "
        "depuis en entre par pour sans sous sur vers",
        "le la les un une mon ma mes ton ta tes son sa ses ce cet cette ces",
    ),
    "it": _words(
        "e o ma perché che se quando mentre come anche a al alla con contro da dal dalla di del della dei in nel nella "
        "per su sul sulla tra fra senza",
        "il lo la i gli le un uno una mio tuo suo",
    ),
}
"""Short lists by language; other languages have none."""


@lru_cache(4096)
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return WIDE if unicodedata.east_asian_width(character) in "WF" else 1


def width_of(text: str) -> int:
    """Return the columns of a text: 2 of a full-width character, 0 of a combining mark, 1 of any other."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def pieces_of(text: str) -> Iterator[str]:
    """Yield the parts of a word between which a line may break; words with spaces between them stay together."""
    start = 0
    for place in range(1, len(text)):
        if may_break(text[place - 1], text[place]):
            yield text[start:place]
            start = place
    yield text[start:]


def may_break(before: str, after: str) -> bool:
    """Return whether a line may break between two neighbouring characters of a text without a space between them."""
    if (before.isascii() and after.isascii()) or not (_IDEOGRAPH.match(before) or _IDEOGRAPH.match(after)):
        return False
    if before in _QUOTES or after in _QUOTES or before == " " or after == " ":
        return False
    if unicodedata.category(before) in _NOT_BEHIND or unicodedata.category(after) in _NOT_BEFORE:
        return False
    return "LETTER SMALL" not in unicodedata.name(after, "")


def is_joined(before: str, after: str) -> bool:
    """Return whether two words are of scripts without spaces where they meet, so that none is written between them."""
    return bool(_WITHOUT_SPACES.match(before[-1:]) and _WITHOUT_SPACES.match(after[:1]))


def divided(text: str, columns: int) -> Iterator[str]:
    """Yield parts of a text of at most `columns`, cut at spaces where possible, and never within a letter."""
    while width_of(text) > columns:
        place = max(1, _fitting(text, columns))
        space = text.rfind(" ", 1, place + 1)
        if space > 0:
            place = space
        while place > 1 and not _may_cut(text[place - 1], text[place]):
            place -= 1
        yield text[:place]
        text = text[place:].lstrip(" ")
    if text:
        yield text


def _fitting(text: str, columns: int) -> int:
    """Return the number of first characters of a text that fit."""
    for place, character in enumerate(text):
        columns -= _columns(character)
        if columns < 0:
            return place
    return len(text)


def _may_cut(before: str, after: str) -> bool:
    """Return whether a word may be cut between two characters if there is no better place."""
    if unicodedata.category(after) in ("Mn", "Mc", "Me", "Cf"):
        return False
    return not (_BEFORE_ITS_CONSONANT.match(before) or _BEHIND_ITS_CONSONANT.match(after))


def is_new_phrase(before: str, after: str) -> bool:
    """Return whether a phrase of Japanese likely begins: after the hiragana that end words and particles."""
    return bool(_HIRAGANA.match(before[-1:])) and not _HIRAGANA.match(after[:1])


def begins_phrase(text: str, language: str | None) -> bool:
    """Return whether a word is one that lines break before."""
    return language is not None and text.strip(_ENDS).lower() in SMALL_WORDS[language].leading


def leads_on(text: str, language: str | None) -> bool:
    """Return whether a word belongs to the one after it, as an article or a preposition does."""
    if language is None:
        return False
    words, word = SMALL_WORDS[language], text.lower()
    return word in words.articles or word in words.leading
