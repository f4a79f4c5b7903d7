"""Agreement of two texts of a row."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.ops.late_steps import CARRIED, RESULT, carried_values
from raysp.text.error_rates import Normalisation, count_errors

if TYPE_CHECKING:  # as the op of a step it is used without torch
    from raysp.crossing import Array
    from raysp.ops.forward import Forward, Rows, Selected


def agreement_of(text: str, other: str, normalise: Normalisation) -> dict[str, float | int]:
    """Return the errors of a text against another one; see `raysp.Agreement`."""
    text, other = normalise(text), normalise(other)
    [[*of_words, words]], [[*of_characters, characters]] = (
        count_errors([other], [text], characters=characters).tolist() for characters in (False, True)
    )
    edits = sum(of_words)
    return {
        "wer": edits / max(1, words),
        "cer": sum(of_characters) / max(1, characters),
        "edits": edits,
        "words": words,
    }


@dataclass(eq=False)
class Agreeing:
    """Op for the agreement of a transcript, or of a column of texts, with another column of texts.

    Attributes:
        schema: the column.
        text: column of the texts, of an earlier output of the step unless `is_column`.
        other: column of the other texts.
        normalise: normalisation of both.
        is_column: whether `text` is a column of the source, as `other` is.
    """

    schema: pa.Schema
    _: KW_ONLY
    text: str
    other: str
    normalise: Normalisation
    is_column: bool = False
    name: str = field(default="Agreement", init=False)
    reads: Sequence[str] = field(default=(), init=False)
    staged: pa.Schema = field(default=pa.schema([]), init=False)
    layers: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self.reads = self.text, self.other

    def __call__(self, rows: pa.Table) -> Mapping[str, object]:
        texts = (rows.column(name).to_pylist() for name in self.reads)
        return {self.schema.names[0]: [self._value(*pair) for pair in zip(*texts, strict=True)]}

    def select(self, forward: "Forward") -> "Selected":
        return {}

    def columns(self, arrays: "Mapping[str, Array]", rows: "Rows") -> list[Sequence[object]]:
        of_texts = rows.source if self.is_column else rows.results
        texts = zip(of_texts[self.text], rows.source[self.other], rows.parts, strict=True)
        return [[None if part is not None else self._value(text, other) for text, other, part in texts]]

    def empty(self) -> tuple[object, ...]:
        return (None,)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        texts = windows.column(f"{CARRIED if self.is_column else RESULT}{self.text}").to_pylist()
        return (self._value(texts[-1], carried_values(windows, self.other)[-1]),)

    def _value(self, text: object, other: object) -> dict[str, float | int] | None:
        return None if text is None or other is None else agreement_of(str(text), str(other), self.normalise)
