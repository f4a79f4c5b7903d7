"""Vocabularies of characters for CTC heads: built from texts, and compared with them."""

from collections import Counter
from collections.abc import Iterable, Mapping

PAD, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"
"""Token of the blank and of padding, token of unknown characters, and the token that stands for a space."""
RESERVED = (PAD, UNKNOWN, DELIMITER)
"""Tokens of a built vocabulary that texts cannot contain: a `|` in a text would be read as the end of a word."""
BAR = "| in a text"
"""Key under which a `DELIMITER` that a text itself contains is counted."""


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """Return the count of each character; a space as `DELIMITER`, and a `DELIMITER` as `BAR`."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(text.replace(DELIMITER, "").replace(" ", DELIMITER))
        if bars := text.count(DELIMITER):
            found[BAR] += bars
    return found


def build(counts: Mapping[str, int], *, least: int = 1) -> dict[str, int]:
    """Return a vocabulary: the blank is token 0, then unknown characters, the delimiter, and characters by code point.

    Args:
        counts: occurrences of each character, as `count_characters` returns them.
        least: occurrences under which a character is left out.
    """
    kept = sorted(one for one, count in counts.items() if count >= least and one not in (DELIMITER, BAR))
    return {token: number for number, token in enumerate([PAD, UNKNOWN, DELIMITER, *kept])}


def outside(counts: Mapping[str, int], vocabulary: Mapping[str, int]) -> dict[str, int]:
    """Return the characters that a vocabulary lacks with their occurrences, the most frequent first."""
    missing = {character: count for character, count in counts.items() if character not in vocabulary}
    return dict(sorted(missing.items(), key=lambda one: (-one[1], one[0])))
