"""Vocabularies of characters for CTC heads: built from texts, and compared with them."""

from collections import Counter
from collections.abc import Iterable, Mapping

PAD, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"
"""Token of the blank and of padding, token of unknown characters, and the token that stands for a space."""


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Return how often each character occurs; a space as `DELIMITER`."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(text.replace(" ", DELIMITER))
    return found


def build(counts: Mapping[str, int], *, least: int = 1) -> dict[str, int]:
    """Return a vocabulary: the blank is token 0, then unknown characters, the delimiter, and characters by code point.

    Args:
        counts: occurrences of each character, as `count_characters` returns them.
        least: occurrences under which a character is left out.
    """
    kept = sorted(character for character, count in counts.items() if count >= least and character != DELIMITER)
    return {token: number for number, token in enumerate([PAD, UNKNOWN, DELIMITER, *kept])}


def outside(counts: Mapping[str, int], vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Return the characters that a vocabulary lacks with their occurrences, the most frequent first."""
    missing = {character: count for character, count in counts.items() if character not in vocabulary}
    return dict(sorted(missing.items(), key=lambda one: (-one[1], one[0])))
