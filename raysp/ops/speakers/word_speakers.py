"""Speakers of words, by the turns of their recording."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from raysp.ops.step_ops import ColumnOp

SPEAKER = "speaker"
"""Field of turns and of words."""
Turn = Mapping[str, Any]


def with_speaker(words: "pa.ListType[pa.StructType]") -> "pa.ListType[pa.StructType]":
    """Return the type of a list of words with a speaker each."""
    fields = [field for field in words.value_type if field.name != SPEAKER]
    return pa.list_(pa.struct([*fields, pa.field(SPEAKER, pa.int32())]))


class WordSpeakers(ColumnOp):
    """Op that adds speakers to the words of recordings.

    Args:
        turns: field of the column of turns.
        words: fields of the columns of words, without speakers.
    """

    name = "Turns"

    def __init__(self, turns: "pa.Field[Any]", words: Sequence["pa.Field[Any]"]) -> None:
        # Turns are first: where they are null, so are all words.
        self.schema = pa.schema([turns, *(field.with_type(with_speaker(field.type)) for field in words)])
        self.reads = tuple(self.schema.names)

    def __call__(self, rows: pa.Table) -> Mapping[str, Sequence[object]]:
        turns, *words = (cast("list[Any]", rows.column(name).to_pylist()) for name in self.reads)
        found = [[spoken(of_row, said) for of_row, said in zip(turns, column, strict=True)] for column in words]
        return dict(zip(self.reads, [turns, *found], strict=True))


def spoken(turns: Sequence[Turn], words: Sequence[dict[str, object]] | None) -> list[dict[str, object]] | None:
    """Return words with their speakers: of the turn with the largest part of each, else of the nearest turn.

    Words without times, and those of recordings without turns, have no speaker.
    """
    if words is None:
        return None
    return [{**word, SPEAKER: _speaker(turns, word.get("start"), word.get("end"))} for word in words]


def _speaker(turns: Sequence[Turn], start: object, end: object) -> int | None:
    if not turns or not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    # The gap to a turn is minus their overlap; of equal ones the first is taken.
    nearest = min(turns, key=lambda one: max(one["start"], start) - min(one["end"], end))
    return cast("int", nearest[SPEAKER])
