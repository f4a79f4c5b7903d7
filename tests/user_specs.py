"""A step and an output that a user wrote, outside raysp."""

import pyarrow as pa

from raysp.ops.filtering import RowOp
from raysp.specs import spec
from raysp.specs.steps import Functions, Output, Step


@spec
class Louder(Step):
    """Make recordings louder."""

    gain: float = 2.0

    @property
    def columns(self) -> tuple[str, ...]:
        return ("gain",)


@spec
class Spoken(Step):
    """Keep rows with enough words in a column, and not too many a second."""

    column: str = "text"
    min_words: int = 1
    most_per_second: float | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def reads_seconds(self) -> bool:
        return self.most_per_second is not None

    def op(self, functions: Functions) -> "EnoughWords":
        return EnoughWords(self)


class EnoughWords(RowOp):
    def __init__(self, spoken: Spoken) -> None:
        self.spoken = spoken

    def __call__(self, rows: pa.Table) -> list[str | None]:
        counts = [len((text or "").split()) for text in rows.column(self.spoken.column).to_pylist()]
        return [f"{count} words" if count < self.spoken.min_words else None for count in counts]

    def judge(self, seconds: float) -> str | None:
        most = self.spoken.most_per_second
        return "spoken too fast" if most is not None and self.spoken.min_words / seconds > most else None


@spec
class Pitch(Output):
    """The pitch of a recording."""

    name: str = "pitch"

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"{self.name}_hz",)

    def schema(self) -> pa.Schema:
        return pa.schema([(f"{self.name}_hz", pa.float32())])


NOT_A_SPEC = 3


def odd_rows(table: pa.Table) -> list[bool]:
    return [row % 2 == 1 for row in range(table.num_rows)]


def too_few(table: pa.Table) -> list[bool]:
    return [True]
