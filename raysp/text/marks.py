"""Marks of punctuation in the times of words: they have no sound, and models write them when the pause is over."""

import unicodedata
from collections.abc import Sequence
from functools import cache

_CATEGORIES = frozenset({"Po", "Ps", "Pe", "Pi", "Pf", "Pd"})
_OF_WORDS = frozenset("'\u2019-\u2010\u2011\u00b7\u05f3\u05f4&@#%\u2030*/\\\u00a7")
"""Punctuation that is part of words, or that is spoken: apostrophes, hyphens, "%"."""


@cache
def is_mark(text: str) -> bool:
    """Return whether a text has marks of punctuation alone."""
    return bool(text) and all(unicodedata.category(one) in _CATEGORIES and one not in _OF_WORDS for one in text)


def times_of_word(texts: Sequence[str], times: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the start and end of each character of a word, where marks have no length.

    A mark is where the character before it ends, or, at the beginning of a word, where the first letter starts. In a
    word of marks alone each is at its own start.
    """
    is_spoken = [not is_mark(one) for one in texts]
    until = next((start for (start, _), spoken in zip(times, is_spoken, strict=True) if spoken), None)
    found: list[tuple[float, float]] = []
    for (start, end), spoken in zip(times, is_spoken, strict=True):
        if spoken:
            until = end
        else:
            start = end = start if until is None else until
        found.append((start, end))
    return found
