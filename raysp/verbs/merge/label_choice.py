"""Choice of a label for each row, and the column that records it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from raysp.corpus.shards import Shard
from raysp.errors import StoreError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.sink import footer
from raysp.sink.label_rows import Cursor, side_by_side, stretches
from raysp.verbs.merge.candidates import Candidates
from raysp.verbs.merge.elected_rows import ElectedRows
from raysp.verbs.merge.rules import Rule

PROVENANCE = "labelling"
"""Column of a merged label shard: the labelling that a row was taken from."""
PROVENANCE_TYPE = pa.struct(
    [(name, pa.string()) for name in ("sink", "run", "fingerprint", "checkpoint", "checkpoint_digest")]
)


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


@dataclass
class Chooser:
    """Reader of the merged rows of shards, which counts the choices."""

    sides: Sequence[Side]
    rule: Rule
    counts: Counter[int] = field(default_factory=Counter)
    """Rows by the place of the labelling whose label they have."""
    elected: int = 0
    """Rows with an elected text."""

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
        rows = Candidates(tables, first, end - first)
        chosen = self.rule.choose(rows)
        places = rows.places[chosen.best, np.arange(end - first)]
        if (places < 0).any():
            row = first + int(np.flatnonzero(places < 0)[0])
            raise StoreError(
                f"{shard}: row {row} is in none of the labellings: the files of the rows that they left out are gone; "
                "run `raysp verify` on them, and label the shard again"
            )
        self.counts.update(chosen.best.tolist())
        self.elected += len(chosen.texts)
        names = [*self.sides[0].columns, PROVENANCE]
        offsets = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
        everything = pa.concat_tables([table.select(names) for table in tables]).unify_dictionaries()
        table = everything.take(offsets[chosen.best] + places)
        return self._elected_rows.replaced(table, chosen.texts) if chosen.texts else table

    @cached_property
    def _elected_rows(self) -> ElectedRows:
        return ElectedRows.of([side.labelling for side in self.sides], str(self.rule.text))
