"""Phrases that models write where nothing like them was said, such as "Thank you for watching"."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from raysp import bounds
from raysp.errors import CheckpointError
from raysp.text.scripts import UNSPACED, script

Words = tuple[str, ...]
MOST_BYTES = 16 * bounds.MIB
"""Largest file of phrases."""


class Phrases:
    """Phrases, found in texts by whole words, whatever their case and punctuation.

    Args:
        phrases: the phrases; those without a letter or digit are left out.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._phrases = {words for phrase in phrases if (words := words_of(phrase))}
        self._lengths = sorted({len(words) for words in self._phrases}, reverse=True)

    @classmethod
    def read(cls, path: Path) -> "Phrases":
        """Read a file of phrases, one per line, in UTF-8.

        Raises:
            CheckpointError: the file cannot be read, or has no phrase.
        """
        try:
            phrases = cls(bounds.read_file(path, MOST_BYTES).decode("utf-8-sig").splitlines())
        except (OSError, UnicodeDecodeError, bounds.TooLargeError) as error:
            raise CheckpointError(f"{path}: {error}; expected phrases in UTF-8, one per line") from None
        if not phrases._phrases:
            raise CheckpointError(f"{path}: found no phrase; expected phrases in UTF-8, one per line")
        return phrases

    def share(self, text: str) -> float:
        """Return the share of the words of a text that belong to a phrase; 0 for a text without words."""
        words = words_of(text)
        covered = [False] * len(words)
        for first in range(len(words)):
            for length in self._lengths:
                if (part := words[first : first + length]) in self._phrases:
                    covered[first : first + len(part)] = [True] * len(part)
                    break
        return sum(covered) / max(1, len(words))


def words_of(text: str) -> Words:
    """Return the words of a text without case and punctuation; letters of scripts without spaces are words."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return tuple(part for word in words for part in _parts(word))


def _parts(word: str) -> list[str]:
    if word.isascii():
        return [word]
    parts = [""]
    for letter in word:
        parts += [letter, ""] if script(letter) in UNSPACED else [parts.pop() + letter]
    return [part for part in parts if part]
