"""Times of characters and words: their spans, marks of punctuation in them, and the end of the recording."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import SECONDS


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
    written = [char for char in chars if char.text.strip()]
    words = text.split()
    ends = list(accumulate(len(char.text.strip()) for char in written))
    if not written or not words:
        return []
    scale = sum(map(len, words)) / ends[-1]
    places = [(end - len(char.text.strip())) * scale for char, end in zip(written, ends, strict=True)]
    timed: list[Span] = []
    used, length = 0, 0
    for word in words:
        length += len(word)
        first = used
        while used < len(written) and places[used] < length:
            used += 1
        of_word = written[first:used]
        timed.append(_joined(of_word)._replace(text=word) if of_word else Span(word, *(float("nan"),) * 3))
    return timed


def _joined(chars: list[Span], joint: str = "") -> Span:
    return Span(
        joint.join(char.text for char in chars),
        chars[0].start,
        chars[-1].end,
        sum(char.score for char in chars) / len(chars),
    )


_CATEGORIES = frozenset({"Po", "Ps", "Pe", "Pi", "Pf", "Pd"})
_OF_WORDS = frozenset("'\u2019-\u2010\u2011\u00b7\u05f3\u05f4&@#%\u2030*/\\\u00a7")
"""Punctuation that is part of words, or that is spoken: apostrophes, hyphens, "%"."""


@cache
def is_mark(text: str) -> bool:
    """Return whether a text has marks of punctuation alone."""
    return bool(text) and all(unicodedata.category(char) in _CATEGORIES and char not in _OF_WORDS for char in text)


SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "．", "｡", "؟", "۔", "।", "॥")
CLOSING = "\"'”’»)]」』"


def ends_sentence(word: str) -> bool:
    """Return whether a word ends with a mark that ends a sentence, perhaps in quotes or brackets."""
    return word.rstrip(CLOSING).endswith(SENTENCE_ENDS)


_SIGNS = frozenset("&@#%\u2030/\u00a7")


@cache
def is_spoken(text: str) -> bool:
    """Return whether a text has a letter, a figure or a sign that is read aloud, such as "%" and "$"."""
    categories = {unicodedata.category(char) for char in text}
    return any(name[0] in "LN" or name in ("Sc", "Sm", "So") for name in categories) or not _SIGNS.isdisjoint(text)


def times_of_word(texts: Sequence[str], times: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the start and end of each character of a word, where marks have no length.

    A mark is where the character before it ends, or, at the beginning of a word, where the first letter starts. In a
    word of marks alone each is at its own start.
    """
    is_spoken = [not is_mark(character) for character in texts]
    until = next((start for (start, _), spoken in zip(times, is_spoken, strict=True) if spoken), None)
    spans: list[tuple[float, float]] = []
    for (start, end), spoken in zip(times, is_spoken, strict=True):
        if spoken:
            until = end
        else:
            start = end = start if until is None else until
        spans.append((start, end))
    return spans


def shared_frames(
    frames: npt.NDArray[np.integer], ends: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the start and end of each token in frames, without overlaps; tokens of one frame have equal parts of it.

    Args:
        frames: frame of each token, in order.
        ends: frame at which each token ends, which may be after the start of the next one.
    """
    _, firsts, counts = np.unique(frames, return_index=True, return_counts=True)
    share = np.repeat(counts, counts)
    starts = frames + (np.arange(len(frames)) - np.repeat(firsts, counts)) / share
    return starts, np.minimum(ends, np.append(starts[1:], np.inf))


TIMES = ("start", "end")


def timed_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns whose values are lists with times, such as words, segments and turns."""
    return [field.name for field in schema if _has_times(field.type)]


def _has_times(kind: pa.DataType) -> bool:
    if not isinstance(kind, pa.ListType) or not pa.types.is_struct(kind.value_type):
        return False
    return {*TIMES} <= {field.name for field in kind.value_type}


def within_recordings(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return rows with times from 0 to the seconds of the row; a row without seconds keeps its times.

    Args:
        rows: rows with their seconds.
        names: columns with times.
    """
    seconds = rows.column(SECONDS).to_numpy()  # NaN for null
    seconds = np.where(np.isnan(seconds), np.inf, seconds)
    for name in names:
        place = rows.schema.get_field_index(name)
        lists = cast("pa.ListArray[Any]", rows.column(name).combine_chunks())
        rows = rows.set_column(place, rows.schema.field(place), _within(lists, seconds))
    return rows


def _within(lists: "pa.ListArray[Any]", seconds: "np.ndarray[Any, np.dtype[np.float64]]") -> "pa.ListArray[Any]":
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    spans = cast("Any", lists.flatten())
    most = pa.array(np.repeat(seconds, lengths))
    fields = [
        pc.max_element_wise(pc.min_element_wise(values, most, skip_nulls=False), 0.0, skip_nulls=False)
        if field.name in TIMES
        else values
        for field, values in zip(spans.type, spans.flatten(), strict=True)
    ]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    structs = pa.StructArray.from_arrays(fields, fields=[*spans.type])
    return pa.ListArray.from_arrays(offsets, structs, type=lists.type, mask=lists.is_null())
