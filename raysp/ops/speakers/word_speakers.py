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
        # Turns come first: where they are null, so are all words.
        self.schema = pa.schema([turns, *(field.with_type(with_speaker(field.type)) for field in words)])
        self.reads = tuple(self.schema.names)

    def __call__(self, rows: pa.Table) -> Mapping[str, Sequence[object]]:
        turns, *words = (cast("list[Any]", rows.column(name).to_pylist()) for name in self.reads)
        columns = [[spoken(*of_row) for of_row in zip(turns, column, strict=True)] for column in words]
        return dict(zip(self.reads, [turns, *columns], strict=True))


def spoken(turns: Sequence[Turn], words: Sequence[dict[str, object]] | None) -> list[dict[str, object]] | None:
    """Return words with the speaker of the turn that overlaps each most, else of the nearest turn.

    Words without times, and words of recordings without turns, have no speaker.
    """
    if words is None:
        return None
    return [{**word, SPEAKER: _speaker(turns, word.get("start"), word.get("end"))} for word in words]


def _speaker(turns: Sequence[Turn], start: object, end: object) -> int | None:
    if not turns or not isinstance(start, int | float) or not isinstance(end, int | float):
        return None
    # The gap to a turn is minus their overlap; among equal gaps the first turn wins.
    nearest = min(turns, key=lambda turn: max(turn["start"], start) - min(turn["end"], end))
    return cast("int", nearest[SPEAKER])
