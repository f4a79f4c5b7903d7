"""Spans of speech: characters with their times, and the words that they make up."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """A character or a word, where it is heard, and how surely.

    `start` and `end` are seconds; `score` is a probability. Between words stands a span whose text is empty.
    """

    text: str
    start: float
    end: float
    score: float


def words_of(chars: Iterable[Span]) -> Iterator[Span]:
    """Put characters together to words.

    A word lasts from the start of its first to the end of its last character; its score is the mean of theirs.
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
