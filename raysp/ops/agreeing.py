"""Agreement of a transcript with another text of its recording."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import pyarrow as pa

from raysp.crossing import Array
from raysp.ops.forward import Forward, Rows, Selected
from raysp.ops.late_steps import RESULT, carried_values
from raysp.text.error_rates import Normalisation, count_errors


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
    """Op for the agreement of a transcript with a column of texts.

    Attributes:
        schema: the column.
        text: column of the transcript, of an earlier output of the step.
        other: column of the source with the other texts.
        normalise: normalisation of both.
    """

    schema: pa.Schema
    _: KW_ONLY
    text: str
    other: str
    normalise: Normalisation
    staged: pa.Schema = field(default=pa.schema([]), init=False)
    layers: tuple[int, ...] = field(default=(), init=False)

    def select(self, forward: Forward) -> Selected:
        return {}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        texts = zip(rows.results[self.text], rows.source[self.other], rows.parts, strict=True)
        return [[None if part is not None else self._value(text, other) for text, other, part in texts]]

    def empty(self) -> tuple[object, ...]:
        return (None,)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        text, other = windows.column(f"{RESULT}{self.text}").to_pylist(), carried_values(windows, self.other)
        return (self._value(text[-1], other[-1]),)

    def _value(self, text: object, other: object) -> dict[str, float | int] | None:
        return None if text is None or other is None else agreement_of(str(text), str(other), self.normalise)
