"""Comparisons of one output column, batch by batch: numbers for each row are kept, texts are not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.evaluation.diff.compared_columns import Compared
from raysp.evaluation.diff.diff_result import AgainstReference, ClassChange, ColumnDifference
from raysp.evaluation.equal_rows import Bools, EqualRows
from raysp.evaluation.recognition import PairedErrors, TextAgreement, TextMeasures, measure_texts, worst_texts
from raysp.evaluation.scores import Columns, Key, Measures, Mismatch, WorstRow, compare
from raysp.labelling.finished.label_columns import keys_of
from raysp.labelling.planning.surveying import holds_text
from raysp.sink.receipts import texts_of
from raysp.text.error_rates import Normalisation

SCORE = "score"
"""Field of the probability of a word, segment or turn."""
Column: TypeAlias = "pa.ChunkedArray[Any]"


@dataclass(frozen=True)
class Both:
    """Rows of a shard that are ok in both labellings."""

    shard: str
    a: pa.Table
    b: pa.Table
    references: Sequence[str | None] | None = None

    def columns(self, name: str) -> tuple[Column, Column]:
        """Return a column of both."""
        return self.a.column(name), self.b.column(name)

    def place(self, index: int) -> tuple[object, str, int, float | None]:
        """Return the id of a row, its shard, its place in the shard, and its seconds."""
        row = self.a.slice(index, 1)
        return keys_of(row.column("id"))[0], self.shard, row.column("row")[0].as_py(), row.column("seconds")[0].as_py()


class Comparer(Protocol):
    """A comparison of a column, to which rows are added."""

    def add(self, rows: Both) -> None:
        """Compare the rows of a batch, and keep the numbers of each."""
        ...

    def result(self, columns: Columns) -> ColumnDifference:
        """Return the differences in all rows that were added; `columns` has a value for each of them."""
        ...


def comparer(column: Compared, rules: Normalisation, worst: int, reference: str | None) -> Comparer:
    """Return the comparison of a column. `reference` names the column of the references of texts, if there is one."""
    if column.kind == "text":
        return _Texts(column, rules, worst, reference)
    return _Values(column, worst)


class _Texts:
    """Word and character errors of B's texts against A's, and of both against references."""

    def __init__(self, column: Compared, rules: Normalisation, worst: int, reference: str | None) -> None:
        self._column, self._rules, self._most, self._reference = column, rules, worst, reference
        self._between: list[TextMeasures] = []
        self._against: tuple[list[TextMeasures], list[TextMeasures]] = [], []
        self._has_reference: list[bool] = []
        self._worst: list[WorstRow] = []

    def add(self, rows: Both) -> None:
        a, b = (self._normalised(texts_of(column)) for column in rows.columns(self._column.name))
        measures = measure_texts(a, b)
        self._between.append(measures)
        worst = [text.at(*rows.place(text.index)) for text in worst_texts(a, b, measures, self._most)]
        by_errors = sorted([*self._worst, *worst], key=lambda row: (-row.errors, len(row.reference.split())))
        self._worst = by_errors[: self._most]
        if rows.references is not None:
            self._compare_with(rows.references, a, b)

    def _compare_with(self, references: Sequence[str | None], *labels: Sequence[str]) -> None:
        chosen = [row for row, text in enumerate(references) if text is not None]
        self._has_reference += [text is not None for text in references]
        texts = self._normalised([references[row] for row in chosen])
        for parts, hypotheses in zip(self._against, labels, strict=True):
            parts.append(measure_texts(texts, [hypotheses[row] for row in chosen]))

    def _normalised(self, texts: Sequence[str | None]) -> list[str]:
        return [self._rules(text or "") for text in texts]

    def result(self, columns: Columns) -> ColumnDifference:
        measures = TextAgreement(TextMeasures.joined(self._between))
        difference = _difference(self._column, measures, len(measures.errors.words_N4), columns)
        return replace(difference, worst=tuple(self._worst), against=self._against_reference(columns))

    def _against_reference(self, columns: Columns) -> AgainstReference | None:
        if self._reference is None or not any(self._has_reference):
            return None
        paired = PairedErrors(*(TextMeasures.joined(parts) for parts in self._against))
        chosen = np.flatnonzero(self._has_reference)
        comparison = compare(paired, len(chosen), columns.of(chosen))
        return AgainstReference(self._reference, comparison.scores, comparison.by)


class _Values:
    """Shares of rows with equal values; of classes also the changes."""

    def __init__(self, column: Compared, worst: int) -> None:
        self._column, self._most = column, worst
        self._equal: list[Bools] = [np.zeros(0, np.bool_)]
        self._changes: Counter[tuple[Key, Key]] = Counter()
        self._worst: list[WorstRow] = []

    def add(self, rows: Both) -> None:
        a, b = (_values(column) for column in rows.columns(self._column.name))
        self._equal.append(np.array([x == y for x, y in zip(a, b, strict=True)], np.bool_))
        if self._column.scores is None:
            return
        changed = np.flatnonzero(~self._equal[-1]).tolist()
        self._changes.update((a[row], b[row]) for row in changed)
        scores = (pc.cast(column, pa.float64()).to_numpy() for column in rows.columns(self._column.scores))
        surest = np.nan_to_num([*scores]).min(0)  # nulls are NaN
        for row in sorted(changed, key=lambda row: -surest[row])[: self._most]:
            mismatch = Mismatch(row, _name(a[row]), _name(b[row]), errors=1, score=float(surest[row]))
            self._worst.append(mismatch.at(*rows.place(row)))
        self._worst = sorted(self._worst, key=lambda row: -(row.score or 0.0))[: self._most]

    def result(self, columns: Columns) -> ColumnDifference:
        equal = np.concatenate(self._equal)
        difference = _difference(self._column, EqualRows(equal), len(equal), columns)
        changes = tuple(ClassChange(a, b, number) for (a, b), number in self._changes.most_common())
        return replace(difference, worst=tuple(self._worst), changes=changes)


def _difference(column: Compared, measures: Measures, num_rows: int, columns: Columns) -> ColumnDifference:
    comparison = compare(measures, num_rows, columns)
    return ColumnDifference(column.name, column.kind, comparison.scores, comparison.by)


def _values(column: Column) -> Sequence[Any]:
    """Return the values of rows; of words and segments without their scores, in which two checkpoints always differ."""
    if holds_text(column.type):
        return texts_of(column)
    values = column.to_pylist()
    return [_without_scores(spans) for spans in values] if _holds_scores(column.type) else values


def _holds_scores(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and kind.value_type.get_field_index(SCORE) >= 0
    )


def _without_scores(spans: Sequence[dict[str, object] | None] | None) -> object:
    return spans and [span and {key: value for key, value in span.items() if key != SCORE} for span in spans]


def _name(value: Key) -> str:
    return "-" if value is None else str(value)
