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


@dataclass
class Chooser:
    """Reader of the merged rows of shards, which counts the choices."""

    labellings: Sequence[Labelling]
    columns: Sequence[str]
    """Columns of the merged label shards, without the provenance, which a labelling may not have itself."""
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
        (labels, rest), *further = map(self._cursors, self.labellings, shards)
        fields = [self.labellings[0].schema.field(name) for name in self.columns]
        yield pa.schema([*fields, pa.field(PROVENANCE, PROVENANCE_TYPE)]).empty_table()
        first = 0
        for table, end in stretches(labels, rest, 0, shards[0].num_rows):
            tables = [table, *(side_by_side(ok.until(end), rest.until(end)) for ok, rest in further)]
            yield self._chosen(tables, first, end, shards[0].name)
            first = end

    def _cursors(self, labelling: Labelling, shard: Shard) -> tuple[Cursor, Cursor]:
        """Return readers of a label shard and of the rows left out of it, with the provenance of each row."""
        names = [*self.columns, *({PROVENANCE} & {*labelling.schema.names})]
        run = footer.read(labelling.store, shard.name).entries.get(footer.RUN)
        labels, rest = labelling.tables(shard, names), labelling.left_out(shard, names)
        return Cursor(_with_provenance(labels, labelling, run)), Cursor(_with_provenance(rest, labelling, run))

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
        names = [*self.columns, PROVENANCE]
        offsets = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
        everything = pa.concat_tables([table.select(names) for table in tables]).unify_dictionaries()
        table = everything.take(offsets[chosen.best] + places)
        return self._elected_rows.replaced(table, chosen.texts) if chosen.texts else table

    @cached_property
    def _elected_rows(self) -> ElectedRows:
        return ElectedRows.of(self.labellings, str(self.rule.text))


def _with_provenance(tables: Iterator[pa.Table], labelling: Labelling, run: str | None) -> Iterator[pa.Table]:
    values = {
        "sink": labelling.url,
        "run": run,
        "fingerprint": labelling.record.fingerprint,
        "checkpoint": labelling.checkpoint,
        "checkpoint_digest": labelling.record.checkpoint_digest,
    }
    for table in tables:
        if PROVENANCE not in table.column_names:
            table = table.append_column(PROVENANCE, pa.array([values] * table.num_rows, PROVENANCE_TYPE))
        yield table.unify_dictionaries()
