"""Words of the tokens that a text decoder writes, each with the places of its tokens."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

BROKEN = "\ufffd"
"""Stands for bytes that are not a whole character yet."""
WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages whose words are not divided by spaces; there each character with its marks is one."""


class TokenWord(NamedTuple):
    """A word and its tokens."""

    text: str
    first: int
    """Place of the first token."""
    end: int
    """Place after the last token with a letter or digit; of a word without any, after the last token."""


def words_of_tokens(ids: Sequence[int], decode: Callable[[Sequence[int]], str], *, has_spaces: bool) -> list[TokenWord]:
    """Return the words of tokens, with the punctuation that touches them.

    Args:
        ids: tokens of text, without special ones.
        decode: returns the text of tokens, with the space that precedes it.
        has_spaces: whether spaces divide words.
    """
    words: list[TokenWord] = []
    first = 0
    while first < len(ids):
        end = first + 1
        while BROKEN in (text := decode(ids[first:end])) and end < len(ids):
            end += 1
        begins = not words or text[:1].isspace() or not has_spaces
        is_spoken = any(map(str.isalnum, text))
        if begins and (has_spaces or is_spoken or not words):
            words.append(TokenWord(text, first, end))
        else:
            last = words[-1]
            words[-1] = TokenWord(last.text + text, last.first, end if is_spoken else last.end)
        first = end
    return [word._replace(text=text) for word in words if (text := word.text.strip())]
