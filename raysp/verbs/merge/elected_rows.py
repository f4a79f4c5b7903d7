"""Rows with an elected text: the row of a labelling, with the text and its words replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.labelling.finished.finished_labels import Labelling
from raysp.sink.run_record import objects_in
from raysp.specs.outputs.signals import OF_TEXT, PHRASES, TEXT_LANGUAGE
from raysp.specs.values import JsonValue
from raysp.verbs.merge.voting import WORD_FIELDS, ElectedText

_OF_TRANSCRIPT = ("score", "words", "chars", "nbest")


def name_of(text: str) -> str:
    """Return the name of the transcript of a column of texts."""
    return text.removesuffix("_text")


def words_column(schema: pa.Schema, text: str) -> str | None:
    """Return the name of the column with timed and scored words of a transcript; None if there is none."""
    name = f"{name_of(text)}_words"
    kind = schema.field(name).type if name in schema.names else pa.null()
    if not isinstance(kind, pa.ListType) or not isinstance(kind.value_type, pa.StructType):
        return None
    return name if {field.name for field in kind.value_type} == {*WORD_FIELDS} else None


@dataclass(frozen=True)
class ElectedRows:
    """Columns of a transcript, and those that were made of it and are null where its text is replaced."""

    text: str
    words: str | None
    cleared: frozenset[str]
    signals: frozenset[str]
    """Columns of signals, of which only the fields of the text are cleared."""

    @classmethod
    def of(cls, labellings: Sequence[Labelling], text: str) -> "ElectedRows":
        """Find the columns by the names of the transcript and by the recorded outputs and steps that read it."""
        schema, name = labellings[0].schema, name_of(text)
        words, signals = words_column(schema, text), set[str]()
        cleared = {f"{name}_{kind}" for kind in _OF_TRANSCRIPT}
        for step in (step for labelling in labellings for step in labelling.record.steps):
            outputs = objects_in(step, "outputs")
            transcripts = [output.get("name") for output in outputs if output.get("type") == "Transcript"]
            for reader in (step, *outputs):
                column, adds = str(reader.get("name")), reader.get("adds")
                if reader.get("type") == "Signals" and transcripts[:1] == [name]:
                    signals.add(column)
                    cleared |= {*TEXT_LANGUAGE} if reader.get("text_language") else set()
                elif reader.get("of") == name or _names(reader, text):
                    cleared |= {other for other in schema.names if other == column or other.startswith(f"{column}_")}
                    cleared |= {*adds} if isinstance(adds, dict) else set()
        return cls(text, words, frozenset(cleared - {words}), frozenset(signals))

    def replaced(self, table: pa.Table, texts: Mapping[int, ElectedText]) -> pa.Table:
        """Return label rows with elected texts by their place."""
        places = [*texts]
        is_elected = np.zeros(table.num_rows, bool)
        is_elected[places] = True
        mask = pa.array(is_elected)
        for number, field in enumerate(table.schema):
            column: pa.ChunkedArray[Any] | pa.Array[Any] = table.column(number)
            if field.name in (self.text, self.words):
                new = [texts[place].text if field.name == self.text else texts[place].words for place in sorted(places)]
                values = pa.array(new, field.type).take(pa.array(np.cumsum(is_elected) - 1, mask=~is_elected))
                column = pc.if_else(mask, values, column)
            elif field.name in self.cleared:
                column = pc.if_else(mask, pa.scalar(None, field.type), column)
            elif field.name in self.signals and pa.types.is_struct(field.type):
                column = _without_text(mask, cast("pa.StructArray", table.column(number).combine_chunks()))
            table = table.set_column(number, field, column)
        return table


def _names(reader: Mapping[str, JsonValue], column: str) -> bool:
    """Return whether a field of a recorded output or step is a column or a list with it."""
    return any(value == column or (isinstance(value, list) and column in value) for value in reader.values())


def _without_text(mask: "pa.Array[Any]", structs: "pa.StructArray") -> "pa.StructArray":
    """Return signals, with null in some rows for the signals of the text."""
    fields = [
        pc.if_else(mask, pa.scalar(None, field.type), values) if field.name in (*OF_TEXT, PHRASES) else values
        for field, values in zip(structs.type, structs.flatten(), strict=True)
    ]
    return pa.StructArray.from_arrays(fields, fields=[*structs.type], mask=structs.is_null())
