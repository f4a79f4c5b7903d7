"""Rules that make reference texts comparable, or trainable: case, and which characters stay."""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Case = Literal["keep", "lower", "upper"]
Language = Literal["tr", "az"]
"""Languages with case rules of their own: İ and i, I and ı are pairs (SpecialCasing.txt of Unicode)."""

APOSTROPHES = dict.fromkeys(map(ord, "\u2018\u2019\u02bc\u2032\uff07`\u00b4"), "'")
_NON_JOINER, _VIRAMA = "\u200c", 9
"""The character, and the combining class of viramas."""
_UNSEEN = re.compile("[\u00ad\u200c-\u200f\u2060\ufeff]")
"""Soft hyphen, non-joiner, joiner, marks of direction, word joiner, byte order mark."""
_SPACE = re.compile(r"\s+")
_SECOND_DOT = re.compile("i\u0307+")
"""An i with its dot as a mark, which languages other than these make of İ."""


@dataclass(frozen=True)
class TextRules:
    """Rules for texts.

    Every text is in Unicode's form NFC, and has single spaces between words and none at its ends.

    Attributes:
        case: "lower", "upper", or as it is.
        keep: "all" characters; or "letters": letters, their marks, digits, and apostrophes within words, every other
            character becomes a space; or the characters that stay, besides spaces, in a string.
        language: language whose case rules hold; None: those that most languages share.
    """

    case: Case = "keep"
    keep: str = "all"
    language: Language | None = None

    def __call__(self, text: str) -> str:
        """Return a text by the rules; an empty one if no character stays."""
        text = unicodedata.normalize("NFC", text)
        if self.case != "keep":
            text = unicodedata.normalize("NFC", in_case(text, self.case, self.language))
        if self.keep == "letters":
            text = _letters(text)
        elif self.keep != "all":
            allowed = {*self.keep}
            text = "".join(character if character in allowed else " " for character in text)
        return _SPACE.sub(" ", text).strip()


def in_case(text: str, case: Literal["lower", "upper"], language: Language | None = None) -> str:
    """Return a text in a case, by the rules of a language; None: those that most languages share."""
    text = text if language is None else _dotted(text, case)
    return text.lower() if case == "lower" else text.upper()


def _dotted(text: str, case: Case) -> str:
    """Return a text with every dotted and dotless i in a case, by the rules of Turkish."""
    if case == "upper":
        return _SECOND_DOT.sub("i", text).replace("i", "İ")
    return _SECOND_DOT.sub("i", text.replace("İ", "i").replace("I", "ı"))


def _letters(text: str) -> str:
    """Return letters, marks and digits, and apostrophes between letters; other characters as spaces."""
    text = joined(text).translate(APOSTROPHES)
    kept = [character if _is_letter(character) or character == "'" else " " for character in text]
    for place, character in enumerate(kept):
        if character == "'":
            around = kept[max(0, place - 1) : place] + kept[place + 1 : place + 2]
            if len(around) < 2 or not all(map(_is_letter, around)):
                kept[place] = " "
    return "".join(kept)


def joined(text: str) -> str:
    """Return a text without the characters that are not seen within a word, such as joiners and soft hyphens.

    A non-joiner after a virama is part of a cluster of Indic scripts (RFC 5892, appendix A.1). Elsewhere, as in
    Persian, it separates what may as well be written with a space, and becomes one.
    """
    return text if text.isascii() else _UNSEEN.sub(_seen, text)


def _seen(found: re.Match[str]) -> str:
    before = found.string[found.start() - 1 : found.start()]
    return " " if found[0] == _NON_JOINER and (not before or unicodedata.combining(before) != _VIRAMA) else ""


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
