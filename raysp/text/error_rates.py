"""Errors of texts against reference texts, counts of edits and the edits themselves; and repetition in a text.

Texts are compared as they are; normalise them before. Words are separated by single spaces. Characters are code points,
spaces included.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from jiwer import AlignmentChunk

Ints = npt.NDArray[np.int64]
Kind = Literal["substitute", "insert", "delete"]

COUNTS = ("substitutions", "insertions", "deletions", "length")
"""Columns of the counts of `count_errors`."""
ROWS_AT_ONCE = 10_000
_COLUMN = {"substitute": 0, "insert": 1, "delete": 2}


@dataclass(frozen=True)
class Edit:
    """Neighbouring words of a reference and the words in their place; `reference` is empty for insertions."""

    kind: Kind
    reference: str
    hypothesis: str
    start: int
    """Place of the first word in the reference."""


def count_errors(references: Sequence[str], hypotheses: Sequence[str], *, characters: bool = False) -> Ints:
    """Return the errors of each row by the alignment with the fewest errors, (N, 4): see `COUNTS`.

    `length` is that of the reference. With an empty reference, every word of the hypothesis is an insertion.

    Args:
        references: N texts.
        hypotheses: N texts.
        characters: count characters instead of words.
    """
    counts = np.zeros((len(references), len(COUNTS)), np.int64)
    for row, chunks in enumerate(_alignments(references, hypotheses, characters=characters)):
        for chunk in chunks:
            counts[row, -1] += chunk.ref_end_idx - chunk.ref_start_idx
            if chunk.type != "equal":
                size = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
                counts[row, _COLUMN[chunk.type]] += size
    return counts


def edits(reference: str, hypothesis: str) -> tuple[Edit, ...]:
    """Return the words in which two texts differ, in order."""
    [chunks] = _alignments([reference], [hypothesis], characters=False)
    ours, theirs = reference.split(" "), hypothesis.split(" ")
    return tuple(
        Edit(
            cast("Kind", chunk.type),
            " ".join(ours[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(theirs[chunk.hyp_start_idx : chunk.hyp_end_idx]),
            chunk.ref_start_idx,
        )
        for chunk in chunks
        if chunk.type != "equal"
    )


def _alignments(
    references: Sequence[str], hypotheses: Sequence[str], *, characters: bool
) -> Iterator[Sequence["AlignmentChunk"]]:
    """Yield the alignment of each row."""
    import jiwer

    process = jiwer.process_characters if characters else jiwer.process_words
    for first in range(0, len(references), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        yield from process(list(references[part]), list(hypotheses[part])).alignments


Ranks = npt.NDArray[np.int64]


class Repetition(NamedTuple):
    """The longest sequence of words that a text repeats."""

    words: int
    """Number of its words; 0 if no word is repeated."""
    times: int
    """How often it occurs, without overlaps; 0 if no word is repeated."""


def longest_repetition(words: list[str]) -> Repetition:
    """Return the longest sequence of words that occurs twice without overlap.

    Of several of the same length the one that occurs most often counts. Takes time O(n log² n): sequences of a power of
    two are numbered from those of half the length (Karp, Miller and Rosenberg 1972).
    """
    if len({*words}) == len(words):
        return Repetition(0, 0)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    powers = [np.array([numbers[word] for word in words], np.int64)]
    length = 1
    while 2 * length <= len(words) // 2:
        powers.append(_numbered(powers[-1][:-length], powers[-1][length:]))
        length *= 2
    low, high = 1, len(words) // 2  # a shorter sequence is repeated if a longer one is
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _most(powers, middle) > 1 else (low, middle - 1)
    return Repetition(low, _most(powers, low))


def _numbered(firsts: Ranks, seconds: Ranks) -> Ranks:
    """Return a number for each pair, the same for the same pairs."""
    numbers: Ranks = np.unique(firsts * (int(seconds.max()) + 1) + seconds, return_inverse=True)[1].astype(np.int64)
    return numbers


def _most(powers: list[Ranks], length: int) -> int:
    """Return the number of times that the most frequent sequence of some words occurs without overlaps."""
    level = length.bit_length() - 1
    shift = length - (1 << level)
    ranks = powers[level]
    sequences = _numbered(ranks[: len(ranks) - shift], ranks[shift:])
    order = np.argsort(sequences, kind="stable")
    most = 1
    for places in np.split(order, np.flatnonzero(np.diff(sequences[order])) + 1):
        if len(places) > most and places[-1] - places[0] >= length:
            most = max(most, _apart(places.tolist(), length))
    return most


def _apart(places: list[int], length: int) -> int:
    """Return the number of places, in order, that are at least a length apart."""
    found, end = 0, 0
    for place in places:
        if place >= end:
            found, end = found + 1, place + length
    return found


def compression(text: str) -> float:
    """Return the bytes of a text over those of its zlib compression, as Whisper measures loops (Radford et al. 2022).

    It is 0 for an empty text, below 1 for one of a few words, and mostly below 2.4 for speech.
    """
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded))
