"""Time spans of characters, and of the words that they form."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """A character or word with its times and score.

    `start` and `end` are seconds, `score` is a probability. A span with an empty text separates words.
    """

    text: str
    start: float
    end: float
    score: float


def words_of(chars: Iterable[Span]) -> Iterator[Span]:
    """Yield the words of a sequence of characters.

    A word spans from the start of its first character to the end of its last one. Its score is their mean score.
    """
    word: list[Span] = []
    for char in chars:
        if char.text:
            word.append(char)
        elif word:
            yield _joined(word)
            word = []
    if word:
        yield _joined(word)


def _joined(chars: list[Span]) -> Span:
    return Span(
        "".join(char.text for char in chars),
        chars[0].start,
        chars[-1].end,
        sum(char.score for char in chars) / len(chars),
    )
