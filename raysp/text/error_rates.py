"""Errors of texts against reference texts, row by row: counts of edits, and the edits themselves.

Texts are compared as they are; normalise them before. Words are separated by single spaces. Characters are code points,
spaces included.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

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
