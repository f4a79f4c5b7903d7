"""Choice of a label for each row, and the column that records it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK, SKIPPED, STATUS
from raysp.corpus.shards import Shard
from raysp.errors import PlanError, StoreError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.ops.rows import WITHDRAWN
from raysp.ops.step_ops import column_of
from raysp.sink import footer
from raysp.sink.label_rows import Cursor, side_by_side, stretches

PROVENANCE = "labelling"
"""Column of a merged label shard: the labelling that a row was taken from."""
PROVENANCE_TYPE = pa.struct(
    [(name, pa.string()) for name in ("sink", "run", "fingerprint", "checkpoint", "checkpoint_digest")]
)
Choice = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """One of the labellings."""

    labelling: Labelling
    columns: Sequence[str]
    """Columns of the merged label shards, without the provenance, which it may not have itself."""

    def cursors(self, shard: Shard) -> tuple[Cursor, Cursor]:
        """Return readers of a label shard and of the rows left out of it, with the provenance of each row."""
        names = [*self.columns, *({PROVENANCE} & {*self.labelling.schema.names})]
        run = footer.read(self.labelling.store, shard.name).entries.get(footer.RUN)
        labels, rest = self.labelling.tables(shard, names), self.labelling.left_out(shard, names)
        return Cursor(self._with_provenance(labels, run)), Cursor(self._with_provenance(rest, run))

    def _with_provenance(self, tables: Iterator[pa.Table], run: str | None) -> Iterator[pa.Table]:
        record = self.labelling.record
        values = {
            "sink": self.labelling.url,
            "run": run,
            "fingerprint": record.fingerprint,
            "checkpoint": self.labelling.checkpoint,
            "checkpoint_digest": self.labelling.checkpoint_digest,
        }
        for table in tables:
            if PROVENANCE not in table.column_names:
                table = table.append_column(PROVENANCE, pa.array([values] * table.num_rows, PROVENANCE_TYPE))
            yield table.unify_dictionaries()


def values_of(table: pa.Table, by: str) -> npt.NDArray[np.float64]:
    """Return the values of a numeric column, or of a field of a struct (`signal.noise`); -inf for nulls and NaN."""
    values = pc.cast(column_of(table, by), pa.float64()).to_numpy().astype(np.float64)
    return np.where(np.isnan(values), -np.inf, values)


def check_numeric(url: str, schema: pa.Schema, by: str) -> None:
    """Raise PlanError if label shards have no such column of numbers."""
    fields = [*schema.empty_table().flatten().schema]  # those of a struct are named `signal.noise`
    numbers = [field.name for field in fields if pa.types.is_floating(field.type) or pa.types.is_integer(field.type)]
    if by not in numbers:
        kinds = {field.name: field.type for field in [*fields, *schema]}
        problem = f"a column of {kinds[by]}" if by in kinds else "no such column"
        raise PlanError(
            f"{url}: by={by!r}: found {problem}, expected numbers; columns of numbers are "
            f"{', '.join(numbers) or 'none'}"
        )


@dataclass
class Chooser:
    """Reader of the merged rows of shards, which counts the choices."""

    sides: Sequence[Side]
    by: str
    counts: Counter[int] = field(default_factory=Counter)
    """Rows by the place of the labelling whose label they have."""

    def tables(self, shards: Sequence[Shard]) -> Iterator[pa.Table]:
        """Yield the rows of a shard in order, an empty table first; `shards` has the record of each labelling.

        Raises:
            StoreError: a label shard cannot be read, or a row is missing from all of them.
        """
        cursors = [side.cursors(shard) for side, shard in zip(self.sides, shards, strict=True)]
        (labels, rest), further = cursors[0], cursors[1:]
        yield self._empty(shards[0])
        first = 0
        for table, end in stretches(labels, rest, 0, shards[0].num_rows):
            tables = [table, *(side_by_side(ok.until(end), rest.until(end)) for ok, rest in further)]
            yield self._chosen(tables, first, end, shards[0].name)
            first = end

    def _empty(self, shard: Shard) -> pa.Table:
        schema = self.sides[0].labelling.schema
        fields = [schema.field(name) for name in self.sides[0].columns]
        return pa.schema([*fields, pa.field(PROVENANCE, PROVENANCE_TYPE)]).empty_table()

    def _chosen(self, tables: Sequence[pa.Table], first: int, end: int, shard: str) -> pa.Table:
        names = [*self.sides[0].columns, PROVENANCE]
        places = np.full((len(tables), end - first), -1, np.int64)
        ranks = np.full((len(tables), end - first), -1)
        values = np.full((len(tables), end - first), -np.inf)
        offset = 0
        for index, table in enumerate(tables):
            rows = table.column("row").to_numpy() - first
            places[index, rows] = offset + np.arange(len(rows))
            statuses, kinds = (table.column(name).to_pylist() for name in (STATUS, "error_type"))
            ranks[index, rows] = [*map(_rank, statuses, kinds)]
            values[index, rows] = values_of(table, self.by)
            offset += len(rows)
        best = _best(ranks, values)
        places_of_best = places[best, np.arange(end - first)]
        if (places_of_best < 0).any():
            row = first + int(np.flatnonzero(places_of_best < 0)[0])
            raise StoreError(
                f"{shard}: row {row} is in none of the labellings: the files of the rows that they left out are gone; "
                "run `raysp verify` on them, and label the shard again"
            )
        self.counts.update(best.tolist())
        return pa.concat_tables([table.select(names) for table in tables]).unify_dictionaries().take(places_of_best)


def _rank(status: str | None, kind: str | None) -> int:
    """Return the rank of a row; a row withdrawn by `raysp forget` goes first, so that no labelling labels it again."""
    return 3 if kind == WITHDRAWN else 2 if status == OK else int(status == SKIPPED)


def _best(ranks: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> Choice:
    """Return the first labelling of each row with the best outcome and, of these, the highest value."""
    values = np.where(ranks == ranks.max(0), values, -np.inf)
    best: Choice = ((ranks == ranks.max(0)) & (values == values.max(0))).argmax(0)
    return best
