"""Removal of the labels of withdrawn recordings from a sink, whose rows stay."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa

from raysp.columns import OK
from raysp.corpus.shards import Piece, Shard
from raysp.errors import PlanError, RayspError, RunError, TrustError
from raysp.labelling.finished.finished_labels import Labelling, field_of
from raysp.labelling.finished.kept_rows import recorded_rules
from raysp.labelling.planning.carried import decode, read_source_columns
from raysp.labelling.planning.trust import Recorded, explain, read_recorded
from raysp.ops.rows import WITHDRAWN
from raysp.sink import commit, footer, label_rows, lease, stage
from raysp.sink.label_rows import is_named
from raysp.sink.receipts import texts_of
from raysp.sink.recommitting import rewrite
from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.words import Brief, count, listed

MOST_NAMED = 5
"""Ids that a message names."""


@dataclass(frozen=True, repr=False)
class Forgotten(Brief):
    """Rows whose labels were removed."""

    sink: str
    rows: int
    """Rows with these ids in label shards and in shards that are not committed yet."""
    labels: int
    """Labels that were there and are removed."""
    already: int
    """Rows of `rows` that were withdrawn before."""
    shards_replaced: tuple[str, ...]
    pieces_removed: int
    """Staged pieces of uncommitted shards that were removed; the next run labels them again, without these rows."""
    repeated: dict[str, int]
    """Ids of several rows, with their number; all of them are withdrawn."""
    not_searched: dict[str, str] = field(default_factory=dict)
    """Uncommitted shards whose ids cannot be read here, with the reason; their rows are withdrawn by the next run."""

    @property
    def facts(self) -> dict[str, object]:
        """Facts to print, by name."""
        repeated = [f"{one!r} {number:,} times" for one, number in self.repeated.items()]
        before = f", {self.already:,} of them before" if self.already else ""
        unread = [f"{name}: {reason}" for name, reason in self.not_searched.items()]
        return {
            "withdrawn": f"{count(self.rows, 'row')}{before}",
            "labels": f"{self.labels:,} removed, in {count(len(self.shards_replaced), 'label shard')}",
            "staged": f"{count(self.pieces_removed, 'piece')} removed; the next run labels the other rows again"
            if self.pieces_removed
            else None,
            "shared ids": listed(repeated, MOST_NAMED) or None,
            "not searched": listed(unread, 1) or None,
            "elsewhere": "exports and reports made before still hold the labels: make them again",
        }


def forget(
    sink: str,
    ids: Collection[object],
    storage_options: GivenOptions | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Forgotten:
    """Remove the labels of withdrawn recordings from a sink of label shards.

    Their rows stay, in place, with `id` and kept columns: `skipped`, `withdrawn`, every label null. All rows with an id
    lose their labels, in label shards, among left-out rows and among staged results. The ids are recorded with the
    sink: no later run or retry gives these rows a label. The same call continues an interrupted one.

    Args:
        sink: url of the sink.
        ids: ids of the recordings, compared as texts.
        storage_options: options of the sink; None: those of `pipeline`, or with `trust` the recorded ones.
        pipeline: pipeline that made the labels, to read the ids of shards that are not committed.
        trust: use the recorded pipeline.

    Raises:
        PlanError: there is no sink of label shards at this url, a run is active on it, or no row has one of the ids.
        RunError: another process replaced a label shard; the same call again continues.
    """
    wanted = frozenset(str(one) for one in ((ids,) if isinstance(ids, str) else ids))
    if not wanted:
        raise PlanError(f"{sink}: found no id to forget; name the ids of the recordings")
    recorded = read_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    with lease.held(recorded.sink.store) as own, lease.work_begun():
        return _Forgetting(recorded, wanted)(own)


class _Forgetting:
    """Removal of the labels of some ids."""

    def __init__(self, recorded: Recorded, ids: frozenset[str]) -> None:
        self.recorded = recorded
        self.store = recorded.sink.store
        self.ids = ids
        self.labelling = Labelling.of(recorded.sink, recorded.record)
        self.found: Counter[str] = Counter()
        """Rows of each id."""
        self.labels = self.already = 0
        self.not_searched: dict[str, str] = dict(self.labelling.foreign)

    def __call__(self, own: lease.Lease) -> Forgotten:
        shards = self.labelling.shards.values()
        to_replace = [shard for shard in shards if shard.name in self.labelling.done and self._search(shard)]
        uncommitted = [shard for shard in shards if shard.name not in self.labelling.done]
        pieces = [(shard, piece) for shard in uncommitted for piece in self._search_source(shard)]
        self._refuse_unknown()
        # Before any change: from here on nothing writes a label of these ids.
        label_rows.record_forgotten(self.store, self.ids)
        removed = 0
        for shard, piece in pieces:
            own.check()
            removed += stage.discard(self.store, shard.name, rows=piece) > 0
        if to_replace:
            self.recorded.sink.remove_report()
        for shard in to_replace:
            own.check()
            self._replace(shard)
        return Forgotten(
            self.store.url,
            self.found.total(),
            self.labels,
            self.already,
            tuple(shard.name for shard in to_replace),
            removed,
            {one: number for one, number in sorted(self.found.items()) if number > 1},
            self.not_searched,
        )

    def _search(self, shard: Shard) -> bool:
        """Count the rows of a label shard with one of the ids; return whether any is not withdrawn yet."""
        has_more = False
        names = ["id", "status", "error_type"]
        for table in (*self.labelling.tables(shard, names), *self.labelling.left_out(shard, names)):
            rows = self._named(table)
            statuses = rows.column("status").to_pylist()
            is_done = [one == WITHDRAWN for one in rows.column("error_type").to_pylist()]
            self.labels += statuses.count(OK)
            self.already += sum(is_done)
            has_more = has_more or not all(is_done)
        return has_more

    def _search_source(self, shard: Shard) -> Iterator[Piece]:
        """Count the rows of an uncommitted shard with one of the ids, read from its source, and yield their pieces."""
        try:
            pipeline = self.recorded.trusted_pipeline([shard])
        except TrustError as error:
            self.not_searched[shard.name] = f"its source was not read: {explain(error.unused)}"
            return
        for piece in shard.pieces:
            try:
                table = read_source_columns(
                    pipeline, shard, piece, decode(self.store.url, self.recorded.record.columns)
                )
            except (RayspError, OSError) as error:
                self.not_searched[shard.name] = str(error)
                return
            if self._named(table).num_rows:
                yield piece

    def _named(self, table: pa.Table) -> pa.Table:
        """Return the rows with one of the ids, which are counted."""
        rows = table.filter(pa.array(is_named(table, self.ids)))
        self.found.update(map(str, texts_of(rows.column("id"))))
        return rows

    def _refuse_unknown(self) -> None:
        if not (unknown := sorted(self.ids - self.found.keys())):
            return
        unread = next(iter(self.not_searched.items()), None)
        more = (
            f"; {count(len(self.not_searched), 'shard')} could not be searched, {': '.join(unread)}" if unread else ""
        )
        names = listed([repr(one) for one in unknown], MOST_NAMED)
        raise PlanError(
            f"{self.store.url}: no row has the id {names}{more}; give ids as in the column `id` of the label shards. "
            "Nothing was changed"
        )

    def _replace(self, shard: Shard) -> None:
        """Write a label shard again, without the labels.

        Raises:
            RunError: another process replaced it.
        """
        expected, before = self.store.stat(shard.name), footer.read(self.store, shard.name)
        entries = {name: one for name, one in before.entries.items() if name != "recordings"}
        record = self.recorded.record
        label_shard = commit.LabelShard(
            shard,
            before.receipt.fingerprint,
            rows=cast("commit.Rows", record.file_parts.get("sink.rows", "all")),
            compression=cast(
                "commit.Compression", field_of(field_of(record.pipeline, "sink"), "compression") or "zstd"
            ),
            metadata=entries,
            file_id=before.receipt.file_id,
            texts=self.labelling.texts,
            rules=recorded_rules(record),
        )
        if rewrite(self.store, label_shard, before, expected=expected.version if expected else None) is None:
            raise RunError(f"{self.store.url}/{shard.name}: another process replaced it; run the same command again")
        if path := before.rest_path:  # no later label shard names it, and its messages may quote labels
            self.store.delete(path)
