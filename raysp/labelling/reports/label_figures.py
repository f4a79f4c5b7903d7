"""Figures of the rows of label shards, aggregated batch by batch: memory does not grow with the rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK
from raysp.errors import PlanError
from raysp.evaluation.intervals import Ints
from raysp.evaluation.normalising import DEFAULT, Normalisation, normalisation
from raysp.evaluation.recognition import measure_texts, worst_texts
from raysp.evaluation.scores import BANDS, SECONDS, WorstRow, band
from raysp.labelling.finished.compared_columns import kind_of
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.planning.references import complaints_of_groups, keys_of
from raysp.labelling.planning.surveying import holds_text
from raysp.labelling.reports.reservoirs import Sample, Values
from raysp.labelling.reports.row_error_rates import Errors, Groups, Measured, counts_of
from raysp.pages.axes import Floats
from raysp.sink.word_errors import texts_of

MOST_EXAMPLES = 3
"""Rows that are shown of each error type."""
MOST_MESSAGE = 200
"""Characters of an error message."""
MOST_TYPES = 12
MOST_WORST = 10
MOST_COMPARED = 200_000
"""Characters of a text that is compared with another one."""
MOST_NUMBERS, MOST_CLASSES = 4, 3
"""Output columns of numbers, and of classes, that are shown."""
MOST_BY, MOST_CANDIDATES = 3, 8
"""Columns by which rows are grouped unless others are given; columns of which they are the first that fit."""
FEW_VALUES = 20
SCORE_EDGES = (-0.01, -0.05, -0.1, -0.2, -0.5, -1.0)
"""Scores between which error rates are compared, from the best."""
SCORE_BANDS = (
    f"above {SCORE_EDGES[0]:g}",
    *(f"{low:g} to {high:g}" for high, low in pairwise(SCORE_EDGES)),
    f"{SCORE_EDGES[-1]:g} and below",
)


@dataclass(frozen=True)
class Example:
    """One row without a label."""

    id: str
    message: str


@dataclass
class Problem:
    """Rows without a label for the same reason."""

    status: str
    rows: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class Chosen:
    """Columns that are read for a report."""

    hypothesis: str | None
    """Transcript that is compared."""
    reference: str | None
    """Column of the references; None if there are none."""
    numbers: tuple[str, ...]
    classes: tuple[str, ...]
    by: tuple[str, ...]
    candidates: tuple[str, ...]
    """Columns by which rows are grouped if they have few values."""

    @classmethod
    def of(cls, sink: Labelling, by: Sequence[str] | None) -> "Chosen":
        """Return the columns of a sink; `by` as for `report`.

        Raises:
            PlanError: there is no such column, or it holds no single values.
        """
        schema, outputs = sink.schema, sink.outputs
        kinds = {name: kind_of(schema, name) for name in outputs}
        texts = [name for name, kind in kinds.items() if kind == "text"]
        reference = sink.reference
        has_reference = reference in schema.names and bool(texts) and holds_text(schema.field(str(reference)).type)
        given = tuple(dict.fromkeys(name for name in by or () if name != SECONDS))
        for name in given if sink.done else ():
            _check_group(sink, name)
        kept = [name for name in sink.kept if name in schema.names and holds_text(schema.field(name).type)]
        return cls(
            texts[0] if texts else None,
            reference if has_reference else None,
            tuple([name for name, kind in kinds.items() if kind == "number"][:MOST_NUMBERS]),
            tuple([name for name, kind in kinds.items() if kind == "class"][:MOST_CLASSES]),
            given if sink.done else (),
            () if by is not None else tuple(kept[:MOST_CANDIDATES]),
        )

    @property
    def compares(self) -> bool:
        """Whether texts are compared with references."""
        return self.reference is not None and self.hypothesis is not None

    @property
    def score(self) -> str | None:
        """Column of the transcript's score; None if it is not read."""
        name = f"{str(self.hypothesis).removesuffix('text')}score"
        return name if self.hypothesis is not None and name in self.numbers else None

    @property
    def names(self) -> list[str]:
        """Names of all columns to read."""
        texts = (self.hypothesis, self.reference) if self.compares else ()
        fixed = ("id", "row", "seconds", "status", "error_type", "error_message")
        others = (*self.numbers, *self.classes, *self.by, *self.candidates)
        return list(dict.fromkeys(str(name) for name in (*fixed, *texts, *others)))


def _check_group(sink: Labelling, name: str) -> None:
    if name not in sink.schema.names:
        raise PlanError(
            f"{sink.url}: its label shards have no column {name!r}; their columns are {', '.join(sink.schema.names)}. "
            "Columns of the source are there if the pipeline names them in Parquet(keep=[...])"
        )
    for complaint in complaints_of_groups(sink.schema, name):
        raise PlanError(f"{sink.url}: {complaint}")


class Rows:
    """Figures of all rows that were added.

    Args:
        columns: columns of the rows.
        rules: normalisation of the texts that are compared; None: the usual one.
    """

    def __init__(self, columns: Chosen, rules: Normalisation | None = None) -> None:
        self.columns = columns
        self.rows = 0
        self.durations = Sample()
        self.numbers = {name: Sample() for name in columns.numbers}
        self.classes = {name: Values() for name in columns.classes}
        self.problems: dict[str, Problem] = {}
        self.errors = Errors()
        self.too_long = 0
        """Rows whose texts are too long to be compared."""
        self.worst: list[WorstRow] = []
        bands = [columns.score] if columns.score and columns.compares else []
        self._groups = {SECONDS: Groups(), **{name: Groups() for name in (*bands, *columns.by)}}
        self._candidates = {name: Groups(FEW_VALUES) for name in columns.candidates if name not in columns.by}
        self._rules = rules or normalisation(DEFAULT)

    @property
    def groups(self) -> dict[str, Groups]:
        """Groups by column: by duration, by the given columns, or by the first ones with few values."""
        fitting = [name for name, one in self._candidates.items() if len(one.found) > 1]
        return self._groups | {name: self._candidates[name] for name in fitting[:MOST_BY]}

    def add(self, shard: str, table: pa.Table) -> None:
        """Add rows of a label shard."""
        if not table.num_rows:
            return
        self.rows += table.num_rows
        statuses = [str(one) for one in table.column("status").to_pylist()]
        seconds = _floats(table.column("seconds"))
        self.durations.add(seconds)
        self._add_problems(table, statuses)
        ok = table.filter(pc.equal(table.column("status"), pa.scalar(OK)))
        for name, sample in self.numbers.items():
            sample.add(_floats(ok.column(name)))
        for name, values in self.classes.items():
            values.add(text for text in texts_of(ok.column(name)) if text is not None)
        compared, counts = self._compare(shard, table, statuses)
        rows = Measured(statuses, np.nan_to_num(seconds), compared, counts)
        self._groups[SECONDS].add(_bands(seconds), rows)
        for name, groups in self._groups.items():
            if name == self.columns.score:
                groups.add(_score_bands(_floats(table.column(name))), rows)
            elif name != SECONDS:
                groups.add(keys_of(table.column(name)), rows)
        for name, groups in [*self._candidates.items()]:
            groups.add(keys_of(table.column(name)), rows)
            if groups.has_others:
                del self._candidates[name]

    def _add_problems(self, table: pa.Table, statuses: Sequence[str]) -> None:
        kinds = table.column("error_type").to_pylist()
        for index, (status, kind) in enumerate(zip(statuses, kinds, strict=True)):
            if status == OK:
                continue
            kind = str(kind or status)
            if kind not in self.problems and len(self.problems) >= MOST_TYPES:
                kind = "other reasons"
            problem = self.problems.setdefault(kind, Problem(status))
            problem.rows += 1
            if len(problem.examples) < MOST_EXAMPLES:
                row = table.slice(index, 1)
                [message] = texts_of(row.column("error_message"))
                problem.examples.append(Example(str(keys_of(row.column("id"))[0]), message or ""))

    def _compare(self, shard: str, table: pa.Table, statuses: Sequence[str]) -> tuple[Ints, Ints]:
        """Return the indexes of the rows that have a reference and a label, and their errors."""
        if not self.columns.compares:
            return np.zeros(0, np.int64), np.zeros((0, 8), np.int64)
        references, texts = (
            texts_of(table.column(str(name))) for name in (self.columns.reference, self.columns.hypothesis)
        )
        labelled = [row for row, status in enumerate(statuses) if status == OK and references[row] is not None]
        chosen = [row for row in labelled if max(len(references[row] or ""), len(texts[row] or "")) <= MOST_COMPARED]
        self.too_long += len(labelled) - len(chosen)
        ours, theirs = ([self._rules(one[row] or "") for row in chosen] for one in (references, texts))
        measures = measure_texts(ours, theirs)
        self.errors.add(counts := counts_of(measures))
        for one in worst_texts(ours, theirs, measures, MOST_WORST):
            row = table.slice(chosen[one.index], 1)
            place = keys_of(row.column("id"))[0], shard, row.column("row")[0].as_py(), row.column("seconds")[0].as_py()
            self.worst.append(WorstRow(*place, one.reference, one.hypothesis, one.errors, one.score, one.edits))
        self.worst = sorted(self.worst, key=lambda row: (-row.errors, len(row.reference.split())))[:MOST_WORST]
        return np.array(chosen, np.int64), counts

    @property
    def unlabelled(self) -> Counter[str]:
        """Rows without a label, by reason."""
        return Counter({kind: problem.rows for kind, problem in self.problems.items()})


def _floats(column: "pa.ChunkedArray[Any]") -> Floats:
    """Return numbers; NaN for nulls."""
    return pc.cast(column, pa.float64()).to_numpy()


def _bands(seconds: Floats) -> list[str | None]:
    """Return the band of each duration; None for unknown ones."""
    names = [band(edge) for edge in (0, *BANDS)]
    places = np.searchsorted(BANDS, seconds, side="right")
    return [None if is_unknown else names[place] for place, is_unknown in zip(places, np.isnan(seconds), strict=True)]


def _score_bands(scores: Floats) -> list[str | None]:
    """Return the band of each score; None for rows without one."""
    places = np.searchsorted(-np.array(SCORE_EDGES), -scores, side="right")
    return [None if np.isnan(score) else SCORE_BANDS[place] for score, place in zip(scores, places, strict=True)]


def read_rows(sink: Labelling, by: Sequence[str] | None, rules: Normalisation | None = None) -> Rows:
    """Read the columns of all finished label shards, and of the rows that were left out of them.

    Raises:
        PlanError: as `Chosen.of`.
        StoreError: a label shard cannot be read.
    """
    rows = Rows(Chosen.of(sink, by), rules)
    names = rows.columns.names
    for name in sink.shards:
        if name not in sink.done:
            continue
        for table in sink.tables(sink.shards[name], names):
            rows.add(name, table)
        for table in sink.left_out(sink.shards[name], names):
            rows.add(name, table)
    return rows
