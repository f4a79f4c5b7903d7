"""Time spans of characters, and of the words that they form."""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple


class Span(NamedTuple):
    """A character or word with its times and score.

    `start` and `end` are seconds, `score` is a probability. A span with an empty text separates words. `speaker` is the
    name of who says it, empty if that is not known.
    """

    text: str
    start: float
    end: float
    score: float
    speaker: str = ""


def words_of(chars: Iterable[Span], joint: str = "") -> Iterator[Span]:
    """Yield the words of a sequence of characters, with `joint` between the characters of each.

    A word spans from the start of its first character to the end of its last one. Its score is their mean score.
    """
    word: list[Span] = []
    for char in chars:
        if char.text:
            word.append(char)
        elif word:
            yield _joined(word, joint)
            word = []
    if word:
        yield _joined(word, joint)


def timed_words(text: str, chars: Iterable[Span]) -> list[Span]:
    """Return the words of a text with the times of its characters, which are in order and lack the spaces.

    Where characters and text differ, as after a cleaning of the text, they are matched by their places. A word that no
    character begins in has no times; without characters there are no words.
    """
    written = [one for one in chars if one.text.strip()]
    words = text.split()
    ends = list(accumulate(len(one.text.strip()) for one in written))
    if not written or not words:
        return []
    scale = sum(map(len, words)) / ends[-1]
    places = [(end - len(one.text.strip())) * scale for one, end in zip(written, ends, strict=True)]
    found: list[Span] = []
    used, length = 0, 0
    for word in words:
        length += len(word)
        first = used
        while used < len(written) and places[used] < length:
            used += 1
        of_word = written[first:used]
        found.append(_joined(of_word)._replace(text=word) if of_word else Span(word, *(float("nan"),) * 3))
    return found


def _joined(chars: list[Span], joint: str = "") -> Span:
    return Span(
        joint.join(char.text for char in chars),
        chars[0].start,
        chars[-1].end,
        sum(char.score for char in chars) / len(chars),
    )
