"""Scores: metrics of rows with their intervals, of all rows and by groups."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from raysp.evaluation.intervals import Bootstrap, Floats, Ints, intervals
from raysp.text.error_rates import Edit
from raysp.words import count

SECONDS = "seconds"
"""Name of the grouping by bands of duration."""
BANDS = (1, 2, 5, 10, 20, 30)
"""Seconds at which bands of duration begin."""
TITLES = {
    **{"wer": "WER", "cer": "CER", "accuracy": "accuracy", "f1": "macro F1", "eer": "EER"},
    **{"agreement": "agreement", "wer_change": "WER change", "cer_change": "CER change"},
    **{"wer_a": "WER A", "wer_b": "WER B", "cer_a": "CER A", "cer_b": "CER B"},
}
"""All metrics. The metrics of the last two lines compare two labellings, A and B."""
HIGHER_IS_BETTER = {metric: metric in ("accuracy", "f1", "agreement") for metric in TITLES}
UNDEFINED = "-"
_FORMATS = {"wer_change": "+.2%", "cer_change": "+.2%"}
"""Formats of metrics that are not shares."""
_EQUAL = {"accuracy": "correct", "agreement": "equal"}
"""Counts behind shares of rows."""

Key = str | int | float | bool | None
MeasuresT = TypeVar("MeasuresT", bound="Measures")


def value_text(metric: str, value: float | None) -> str:
    """Return the value of a metric as text, such as "2.33%"."""
    return UNDEFINED if value is None else format(value, _FORMATS.get(metric, ".2%"))


@dataclass(frozen=True)
class Estimate:
    """A metric, with the ends of its 95 % bootstrap interval."""

    value: float | None
    """None if the rows do not define it, such as a word error rate without reference words."""
    low: float | None = None
    """None for fewer than two units of the bootstrap."""
    high: float | None = None

    @property
    def ends(self) -> tuple[float, float, float] | None:
        """Lower end, value and upper end; without an interval the value as each; None without a finite value."""
        if self.value is None or not math.isfinite(self.value):
            return None
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return low, self.value, high


def interval_text(metric: str, estimate: Estimate) -> str:
    """Return the interval of a metric as text, such as "1.00% to 4.00%"."""
    if estimate.low is None or estimate.high is None:
        return UNDEFINED
    return f"{value_text(metric, estimate.low)} to {value_text(metric, estimate.high)}"


@dataclass(frozen=True)
class Scores:
    """Metrics of some rows."""

    rows: int
    metrics: Mapping[str, Estimate]
    """Estimates by the names of `HIGHER_IS_BETTER`."""
    counts: Mapping[str, int]
    """Numbers behind the metrics, such as `words` and `substitutions`."""
    seconds: float | None = None
    """Seconds of audio; None if unknown."""

    def described(self, name: str) -> str:
        """Return a metric as text, with its interval and the numbers behind it."""
        counts, shown = self.counts, f"{self.value(name)} ({self.interval(name)})"
        if name in ("accuracy", "agreement"):
            return f"{shown}: {counts[_EQUAL[name]]:,} of {count(counts.get('of_known_speakers', self.rows), 'row')}"
        if name == "eer" and "target_pairs" in counts:
            return f"{shown}: {self.pairs}"
        if name not in ("wer", "cer"):
            return shown
        unit, prefix = ("word", "") if name == "wer" else ("character", "character_")
        kinds = (f"{count(counts[f'{prefix}{kind}s'], kind)}" for kind in ("substitution", "insertion", "deletion"))
        return f"{shown}: {', '.join(kinds)} in {count(counts[f'{unit}s'], unit)}"

    @property
    def pairs(self) -> str:
        """Compared pairs of rows of a verification, and rows that are in no pair, as text."""
        counts = self.counts
        targets, non_targets = count(counts["target_pairs"], "target pair"), counts["non_target_pairs"]
        without = f", {count(counts['without_vector'], 'row')} without a vector" if counts["without_vector"] else ""
        return f"{targets}, {count(non_targets, 'non-target pair')}{without}"

    def value(self, name: str) -> str:
        """Return the value of a metric as text."""
        return value_text(name, self.metrics[name].value)

    def interval(self, name: str) -> str:
        """Return the interval of a metric as text, such as "1.00% to 4.00%"."""
        return interval_text(name, self.metrics[name])


@dataclass(frozen=True)
class Group:
    """Scores of the rows with the same value of a column."""

    value: Key
    scores: Scores


@dataclass(frozen=True)
class Mismatch:
    """A row whose hypothesis differs from its reference."""

    index: int
    """Index among the compared rows."""
    reference: str
    hypothesis: str | None
    errors: int
    """Word errors; 1 for a wrong class."""
    score: float | None = None
    """Probability of a wrong class."""
    edits: tuple[Edit, ...] = ()
    """Differing words."""

    def at(self, id_: object, shard: str, row: int, seconds: float | None) -> "WorstRow":
        """Return the row with its place in the corpus."""
        return WorstRow(id_, shard, row, seconds, self.reference, self.hypothesis, self.errors, self.score, self.edits)


@dataclass(frozen=True)
class WorstRow:
    """A row whose hypothesis differs from its reference, with its place in the corpus."""

    id: object
    shard: str
    row: int
    """Place of the row in the shard."""
    seconds: float | None
    reference: str
    """Normalised, as is the hypothesis."""
    hypothesis: str | None
    errors: int
    """Word errors; 1 for a wrong class."""
    score: float | None
    """Probability of a wrong class."""
    edits: tuple[Edit, ...]
    """Differing words."""


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class."""

    name: str
    rows: int
    """Rows of this class."""
    predicted: int
    """Rows that were given this class."""
    precision: float | None
    recall: float | None
    f1: float


@dataclass(frozen=True)
class Comparison:
    """Scores of references and hypotheses."""

    scores: Scores
    by: Mapping[str, tuple[Group, ...]]
    """Groups by column, the worst first; bands of duration are sorted by duration."""
    worst: tuple[Mismatch, ...]
    classes: tuple[ClassScores, ...] = ()
    """Scores of each class of a classification, the worst first."""


@dataclass(frozen=True)
class Columns:
    """Further columns of the compared rows, one value per row.

    Attributes:
        seconds: durations, for the groups by duration.
        by: columns for groups.
        over: units of the bootstrap, such as speakers, whose rows are drawn together; None: rows. Rows with None are
            units of their own.
    """

    seconds: Sequence[float] | None = None
    by: Mapping[str, Sequence[Key]] = field(default_factory=dict)
    over: Sequence[Key] | None = None

    def of(self, rows: Ints) -> "Columns":
        """Return the columns of some of the rows."""
        return Columns(
            None if self.seconds is None else [self.seconds[row] for row in rows],
            {name: [values[row] for row in rows] for name, values in self.by.items()},
            None if self.over is None else [self.over[row] for row in rows],
        )


class Measures(Protocol):
    """Metrics of N rows by the weights of the rows: a dataclass of arrays by row, or of other measures."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the M metrics; the groups of a column are sorted by the first."""
        ...

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the metrics (D, M) for each of D weightings of the rows; NaN where undefined."""
        ...

    def counts(self) -> dict[str, int]:
        """Return the numbers behind the metrics."""
        ...


def of_rows(measures: MeasuresT, rows: Ints) -> MeasuresT:
    """Return the measures of some rows, with the elements of these rows in each array and in nested measures."""
    whole: Any = measures

    def chosen(value: Any) -> Any:  # noqa: ANN401 - of a field
        if isinstance(value, np.ndarray):
            return value[rows]
        return of_rows(cast("Any", value), rows) if is_dataclass(value) else value

    return cast("MeasuresT", replace(whole, **{of.name: chosen(getattr(whole, of.name)) for of in fields(whole)}))


def score(measures: Measures, num_rows: int, columns: Columns, bootstrap: Bootstrap) -> Scores:
    """Return the scores of all rows."""
    return _scores(measures, np.arange(num_rows), columns, units_of(columns.over, num_rows), bootstrap)


def compare(
    measures: Measures,
    num_rows: int,
    columns: Columns | None = None,
    bootstrap: Bootstrap | None = None,
    *,
    worst: Sequence[Mismatch] = (),
    classes: tuple[ClassScores, ...] = (),
) -> Comparison:
    """Return the scores of all rows, of the groups of each column, and of bands of duration if durations are known."""
    columns, bootstrap = columns or Columns(), bootstrap or Bootstrap()
    units = units_of(columns.over, num_rows)

    def groups(values: Sequence[Key]) -> list[Group]:
        rows = _rows_by_value(values)
        return [Group(value, _scores(measures, r, columns, units, bootstrap)) for value, r in rows.items()]

    by = {name: tuple(sorted(groups(values), key=_badness)) for name, values in columns.by.items()}
    if columns.seconds is not None:
        order = [band(second) for second in (0, *BANDS)]
        bands = groups([band(second) for second in columns.seconds])
        by = {SECONDS: tuple(sorted(bands, key=lambda group: order.index(str(group.value)))), **by}
    return Comparison(score(measures, num_rows, columns, bootstrap), by, tuple(worst), classes)


def band(seconds: float) -> str:
    """Return the band of a duration: "<1", "1-2", ..., ">=30"."""
    place = int(np.searchsorted(BANDS, seconds, side="right"))
    if place == 0:
        return f"<{BANDS[0]}"
    return f"{BANDS[place - 1]}-{BANDS[place]}" if place < len(BANDS) else f">={BANDS[-1]}"


def _scores(measures: Measures, rows: Ints, columns: Columns, units: Ints, bootstrap: Bootstrap) -> Scores:
    chosen = of_rows(measures, rows)
    values = chosen(np.ones((1, len(rows))))[0]
    # Without gaps: `intervals` draws among all numbers up to the largest.
    _, own_units = np.unique(units[rows], return_inverse=True)
    ends = intervals(chosen, own_units, bootstrap)
    low, high = (None, None) if ends is None else ends
    metrics = {
        name: Estimate(_number(values, i), _number(low, i), _number(high, i)) for i, name in enumerate(chosen.names)
    }
    seconds = None if columns.seconds is None else float(sum(columns.seconds[row] for row in rows))
    return Scores(len(rows), metrics, chosen.counts(), seconds)


def _number(values: Floats | None, index: int) -> float | None:
    return None if values is None or np.isnan(values[index]) else float(values[index])


def units_of(over: Sequence[Key] | None, num_rows: int) -> Ints:
    """Return the number of each row's unit."""
    if over is None:
        return np.arange(num_rows)
    numbers: dict[object, int] = {}
    # A tuple equals no value of a column, so a row without a value is a unit of its own.
    keys = ((row,) if value is None else value for row, value in enumerate(over))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _rows_by_value(values: Sequence[Key]) -> dict[Key, Ints]:
    """Return the rows of each value; NaN counts as None."""
    rows: dict[Key, list[int]] = {}
    for row, value in enumerate(values):
        # NaN differs from itself: each one would be a group of its own.
        rows.setdefault(None if value != value else value, []).append(row)
    return {value: np.array(indices, np.int64) for value, indices in rows.items()}


def _badness(group: Group) -> tuple[float, str]:
    """Return a key that sorts groups by their first metric, the worst first and undefined ones last."""
    [(name, estimate), *_] = group.scores.metrics.items()
    if estimate.value is None:
        return np.inf, str(group.value)
    return estimate.value if HIGHER_IS_BETTER[name] else -estimate.value, str(group.value)
