"""A step and an output that a user wrote, outside raysp."""

import numpy as np
import pyarrow as pa

import raysp
from raysp.ops.step_ops import ColumnOp, RowOp
from raysp.specs import spec
from raysp.specs.steps import Functions, Output, Step
from raysp.specs.values import JsonValue


@spec
class Louder(Step):
    """Make recordings louder."""

    gain: float = 2.0

    @property
    def columns(self) -> tuple[str, ...]:
        return ("gain",)


@spec
class Counted(Step):
    """Count the words of a column."""

    column: str = "text"

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("words",)

    def schema(self) -> pa.Schema:
        return pa.schema([("words", pa.int32())])

    def op(self, functions: Functions) -> "WordCount":
        return WordCount(self)


class WordCount(ColumnOp):
    name = "Counted"

    def __init__(self, counted: Counted) -> None:
        self.reads = counted.reads
        self.schema = counted.schema()

    def __call__(self, rows: pa.Table) -> dict[str, list[int]]:
        [texts] = rows.columns
        return {"words": [len((text or "").split()) for text in texts.to_pylist()]}


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
class Short(Step):
    """A step whose op returns a value for the first row alone, or another result."""

    result: JsonValue = None

    def op(self, functions: Functions) -> "FirstAlone":
        return FirstAlone(self.result)


class FirstAlone(RowOp):
    def __init__(self, result: JsonValue) -> None:
        self.result = result

    def __call__(self, rows: pa.Table) -> JsonValue:
        return self.result


@spec
class Pitch(Output):
    """The pitch of a recording."""

    name: str = "pitch"

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"{self.name}_hz",)

    def schema(self) -> pa.Schema:
        return pa.schema([(f"{self.name}_hz", pa.float32())])


def odd_rows(table: pa.Table) -> list[bool]:
    return [row % 2 == 1 for row in range(table.num_rows)]


REFUSED: frozenset[str] = frozenset({"unbearable"})


def loudness(rows: pa.Table) -> dict[str, object]:
    """Return the loudness of decoded recordings, and their duration; raise an error for some texts."""
    recordings, texts = rows.columns
    if refused := REFUSED & {*texts.to_pylist()}:
        raise ValueError(f"cannot bear {[*refused]}")
    samples = [np.asarray(one["samples"].values) for one in recordings]
    rates = [one["sample_rate"].as_py() for one in recordings]
    return {
        "loudness": np.array([np.sqrt(np.mean(np.square(one, dtype=np.float64))) for one in samples]),
        "duration": pa.array([len(one) / rate for one, rate in zip(samples, rates, strict=True)]),
    }


def sure(rows: pa.Table) -> list[bool]:
    """Keep rows by their outputs and added columns, which it gets beside those of the source."""
    assert rows.column_names == ["id", "length", "pred_text", "pred_score", "pred_words", "signal", "embedding"]
    return [row["pred_score"] > -0.02 and row["signal"]["snr"] > 15 and row["length"] == 7 for row in rows.to_pylist()]


OPS: dict[str, object] = {}
"""Ops of outputs by their names, which a test puts here."""


@spec
class Given(raysp.Embedding):
    """An output whose op a test gives: the number of frames of a recording."""

    name: str = "frames"

    def op(self, checkpoint: object, loaded: object = None) -> object:
        return OPS[self.name]

    def schema(self, checkpoint: object) -> pa.Schema:
        return pa.schema([("frames", pa.int64())])
