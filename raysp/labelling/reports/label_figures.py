"""Figures of the rows of label shards, aggregated batch by batch: memory does not grow with the rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK
from raysp.errors import PlanError
from raysp.evaluation.intervals import Ints
from raysp.evaluation.recognition import measure_texts, worst_texts
from raysp.evaluation.scores import BANDS, SECONDS, WorstRow, band
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.label_columns import complaints_of_groups, keys_of, kind_of
from raysp.labelling.finished.number_columns import numbers_in
from raysp.labelling.planning.surveying import holds_text
from raysp.labelling.reports.row_error_rates import OTHERS, Errors, Groups, counts_of
from raysp.pages.axes import Floats
from raysp.sink.receipts import texts_of
from raysp.text.error_rates import DEFAULT, Normalisation, normalisation

MOST_EXAMPLES, MOST_TYPES = 3, 12
"""Rows that are shown of each reason, and reasons with examples."""
MOST_WORST = 10
MOST_COMPARED = 200_000
"""Characters of a text that is compared with another one."""
MOST_NUMBERS, MOST_CLASSES = 4, 3
"""Output columns of numbers, and of classes, that are shown."""
MOST_BY, MOST_CANDIDATES = 3, 8
"""Columns by which rows are grouped by default, and the columns among which they are chosen."""
FEW_VALUES = 20
MOST_SAMPLED = 50_000


@dataclass(frozen=True)
class Chosen:
    """Columns that are read for a report."""

    hypothesis: str | None
    """Transcript that is compared."""
    reference: str | None
    """Column of the references; None if there are none."""
    numbers: tuple[str, ...]
    by: tuple[str, ...]
    """Columns by which rows are grouped: requested columns, and columns of classes."""
    candidates: tuple[str, ...]
    """Columns by which rows are grouped if they have few values."""

    @classmethod
    def of(cls, sink: Labelling, by: Sequence[str] | None) -> "Chosen":
        """Return the columns of a sink; `by` as for `report`.

        Raises:
            PlanError: there is no such column, or it holds no single values.
        """
        schema = sink.schema
        columns = {kind: [name for name in sink.outputs if kind_of(schema, name) == kind] for kind in KINDS}
        texts, reference = columns["text"], sink.reference
        has_reference = reference in schema.names and bool(texts) and holds_text(schema.field(str(reference)).type)
        requested = [name for name in dict.fromkeys(by or ()) if name != SECONDS and sink.done]
        for name in requested:
            if name not in schema.names:
                raise PlanError(
                    f"{sink.url}: its label shards have no column {name!r}; their columns are "
                    f"{', '.join(schema.names)}. Columns of the source are there if the pipeline names them in "
                    "Parquet(keep=[...])"
                )
            for complaint in complaints_of_groups(schema, name):
                raise PlanError(f"{sink.url}: {complaint}")
        kept = [name for name in sink.kept if name in schema.names and holds_text(schema.field(name).type)]
        return cls(
            sink.transcript if sink.transcript in texts else next(iter(texts), None),
            reference if has_reference else None,
            tuple(columns["number"][:MOST_NUMBERS]),
            tuple(dict.fromkeys([*requested, *columns["class"][:MOST_CLASSES]])),
            () if by is not None else tuple(kept[:MOST_CANDIDATES]),
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of the reference and the transcript; empty without both."""
        return (self.reference, self.hypothesis) if self.reference is not None and self.hypothesis is not None else ()

    @property
    def names(self) -> list[str]:
        """Names of all columns to read."""
        fixed = ("id", "row", "seconds", "status", "error_type", "error_message")
        return list(dict.fromkeys((*fixed, *self.texts, *self.numbers, *self.by, *self.candidates)))


KINDS = ("text", "number", "class")


class Sample:
    """A uniform random sample of finite numbers; all of them if they are few.

    Each number is given a random one, and those with the smallest are kept.

    Args:
        most: numbers to keep.
    """

    def __init__(self, most: int = MOST_SAMPLED) -> None:
        self._most = most
        self._random = np.random.default_rng(0)
        self._drawn = np.empty(0)
        self.values: Floats = np.empty(0)
        self.seen = 0
        """Numbers that were added."""

    def add(self, values: Floats) -> None:
        """Add numbers; numbers that are not finite are ignored."""
        values = values[np.isfinite(values)]
        self.seen += len(values)
        drawn = np.concatenate([self._drawn, self._random.random(len(values))])
        kept = np.argsort(drawn)[: self._most]
        self._drawn, self.values = drawn[kept], np.concatenate([self.values, values])[kept]


class Rows:
    """Figures of all rows that were added.

    Args:
        columns: columns of the rows.
        rules: normalisation of the texts that are compared; None: the usual one.
    """

    def __init__(self, columns: Chosen, rules: Normalisation | None = None) -> None:
        self.columns = columns
        self.samples = {name: Sample() for name in (SECONDS, *columns.numbers)}
        self.examples: dict[str, list[tuple[str, str]]] = {}
        """Ids and messages of a few rows without a label by reason."""
        self.errors = Errors()
        self.too_long = 0
        """Rows whose texts are too long to be compared."""
        self.worst: list[WorstRow] = []
        few = {name: Groups(FEW_VALUES) for name in columns.candidates}
        self._groups = few | {name: Groups() for name in (SECONDS, *columns.by)}
        self._rules = rules or normalisation(DEFAULT)

    @property
    def groups(self) -> dict[str, Groups]:
        """Groups by duration, by requested columns and by classes, or by the first columns with few values."""
        columns = self.columns
        fitting = [name for name in columns.candidates if len(self._groups[name]) > 1]
        fitting = [name for name in fitting if OTHERS not in self._groups[name] and name not in columns.by][:MOST_BY]
        return {name: self._groups[name] for name in (SECONDS, *columns.by, *fitting)}

    def add(self, shard: str, table: pa.Table) -> None:
        """Add rows of a label shard."""
        if not table.num_rows:
            return
        seconds = numbers_in(table.column(SECONDS))
        is_ok = pc.equal(table.column("status"), pa.scalar(OK)).to_numpy()
        self.samples[SECONDS].add(seconds)
        for name in self.columns.numbers:
            self.samples[name].add(numbers_in(table.column(name))[is_ok])
        self._add_examples(table.filter(pa.array(~is_ok)))
        measured = is_ok, np.nan_to_num(seconds), *self._compare(shard, table, is_ok)
        bands = [None if np.isnan(value) else BAND_NAMES[np.searchsorted(BANDS, value, "right")] for value in seconds]
        for name, groups in self._groups.items():
            groups.add(bands if name == SECONDS else keys_of(table.column(name)), *measured)

    def _add_examples(self, table: pa.Table) -> None:
        kinds, messages = texts_of(table.column("error_type")), texts_of(table.column("error_message"))
        for index, kind in enumerate(kinds):
            if kind and (kind in self.examples or len(self.examples) < MOST_TYPES):
                examples = self.examples.setdefault(kind, [])
                if len(examples) < MOST_EXAMPLES:
                    examples.append((str(keys_of(table.column("id").slice(index, 1))[0]), messages[index] or ""))

    def _compare(self, shard: str, table: pa.Table, is_ok: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Return the indexes of the rows that have a reference and a label, and their errors."""
        if not self.columns.texts:
            return np.zeros(0, np.int64), np.zeros((0, 8), np.int64)
        references, texts = (texts_of(table.column(name)) for name in self.columns.texts)
        labelled = [row for row, ok in enumerate(is_ok) if ok and references[row] is not None]
        chosen = [row for row in labelled if max(len(references[row] or ""), len(texts[row] or "")) <= MOST_COMPARED]
        self.too_long += len(labelled) - len(chosen)
        ours, theirs = ([self._rules(column[row] or "") for row in chosen] for column in (references, texts))
        measures = measure_texts(ours, theirs)
        self.errors.add(counts := counts_of(measures))
        for text in worst_texts(ours, theirs, measures, MOST_WORST):
            row = table.slice(chosen[text.index], 1)
            place = keys_of(row.column("id"))[0], shard, row.column("row")[0].as_py(), row.column("seconds")[0].as_py()
            self.worst.append(text.at(*place))
        self.worst = sorted(self.worst, key=lambda row: (-row.errors, len(row.reference.split())))[:MOST_WORST]
        return np.array(chosen, np.int64), counts


BAND_NAMES = [band(edge) for edge in (0, *BANDS)]
"""Bands of duration, from the shortest."""


def read_rows(sink: Labelling, by: Sequence[str] | None, rules: Normalisation | None = None) -> Rows:
    """Read the columns of all finished label shards, and of the rows that were left out of them.

    Raises:
        PlanError: as `Chosen.of`.
        StoreError: a label shard cannot be read.
    """
    rows = Rows(Chosen.of(sink, by), rules)
    for shard in sink.finished_shards:
        for table in chain(sink.tables(shard, rows.columns.names), sink.left_out(shard, rows.columns.names)):
            rows.add(shard.name, table)
    return rows
