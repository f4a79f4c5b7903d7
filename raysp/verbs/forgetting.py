"""Removal of the labels of withdrawn recordings from a sink, whose rows stay."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import cast

import pyarrow as pa

from raysp.columns import OK
from raysp.corpus.shards import Piece, Shard
from raysp.errors import PlanError, RayspError, RunError, TrustError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.kept_rows import recorded_rules
from raysp.labelling.planning.carried import decode, read_source_columns
from raysp.labelling.planning.trust import Recorded, explain, read_recorded
from raysp.ops.rows import WITHDRAWN
from raysp.sink import commit, footer, label_rows, lease, stage
from raysp.sink.label_rows import is_named
from raysp.sink.receipts import texts_of
from raysp.sink.recommitting import rewrite
from raysp.sink.run_record import field_of
from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.words import Brief, count, listed
from raysp.work import SinkRequest

MOST_NAMED = 5
"""Ids that a message names."""
SEARCHED = ["id", "status", "error_type"]
"""Columns of a label shard that are read to find the rows of ids."""


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
        repeated = [f"{id_!r} {number:,} times" for id_, number in self.repeated.items()]
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
        storage_options: options of the sink; None: options of `pipeline`, or with `trust` the recorded ones.
        pipeline: pipeline that made the labels, to read the ids of shards that are not committed.
        trust: use the recorded pipeline.

    Raises:
        PlanError: there is no sink of label shards at this url, a run is active on it, or no row has one of the ids.
        RunError: another process replaced a label shard; the same call again continues.
    """
    withdrawn = frozenset(str(id_) for id_ in ((ids,) if isinstance(ids, str) else ids))
    if not withdrawn:
        raise PlanError(f"{sink}: found no id to forget; name the ids of the recordings")
    recorded = read_recorded(SinkRequest(sink, storage_options, pipeline, trust))
    with lease.held(recorded.sink.store) as own, lease.work_begun():
        return _forget(replace(recorded, sink=recorded.sink.fenced(own)), withdrawn)


def _forget(recorded: Recorded, ids: frozenset[str]) -> Forgotten:
    store, labelling = recorded.sink.store, Labelling.of(recorded.sink, recorded.record)
    counts, labels, already = Counter[str](), 0, 0
    not_searched, staged, to_replace = dict(labelling.foreign), list[tuple[str, Piece]](), dict[str, Shard]()
    for name, shard in labelling.shards.items():
        if name not in labelling.done:
            pieces = _source_rows(recorded, shard, not_searched)
            staged += [(name, piece) for piece, table in pieces if _rows_of(table, ids, counts).num_rows]
            continue
        for table in chain(labelling.tables(shard, SEARCHED), labelling.left_out(shard, SEARCHED)):
            rows = _rows_of(table, ids, counts)
            before = rows.column("error_type").to_pylist().count(WITHDRAWN)
            labels += rows.column("status").to_pylist().count(OK)
            already += before
            if before < rows.num_rows:
                to_replace[name] = shard
    _refuse_unknown(store.url, sorted(ids - counts.keys()), not_searched)
    # Before any change: from here on nothing writes a label of these ids.
    label_rows.record_forgotten(store, ids)
    removed = 0
    for name, piece in staged:
        removed += stage.discard(store, name, rows=piece) > 0
    if to_replace:
        recorded.sink.remove_report()
    for shard in to_replace.values():
        _replace(labelling, shard)
    repeated = {id_: number for id_, number in sorted(counts.items()) if number > 1}
    return Forgotten(store.url, counts.total(), labels, already, tuple(to_replace), removed, repeated, not_searched)


def _rows_of(table: pa.Table, ids: frozenset[str], counts: Counter[str]) -> pa.Table:
    """Return the rows with one of the ids, which are counted by their ids."""
    rows = table.filter(pa.array(is_named(table, ids)))
    counts.update(map(str, texts_of(rows.column("id"))))
    return rows


def _source_rows(recorded: Recorded, shard: Shard, not_searched: dict[str, str]) -> Iterator[tuple[Piece, pa.Table]]:
    """Yield the pieces of an uncommitted shard with their rows of its source, or add why it cannot be read."""
    try:
        pipeline = recorded.trusted_pipeline([shard])
    except TrustError as error:
        not_searched[shard.name] = f"its source was not read: {explain(error.unused)}"
        return
    for piece in shard.pieces:
        try:
            columns = decode(recorded.sink.url, recorded.record.columns)
            yield piece, read_source_columns(pipeline, shard, piece, columns)
        except (RayspError, OSError) as error:
            not_searched[shard.name] = str(error)
            return


def _refuse_unknown(url: str, unknown: Sequence[str], not_searched: Mapping[str, str]) -> None:
    if not unknown:
        return
    unread = next(iter(not_searched.items()), None)
    more = f"; {count(len(not_searched), 'shard')} could not be searched, {': '.join(unread)}" if unread else ""
    names = listed([repr(id_) for id_ in unknown], MOST_NAMED)
    raise PlanError(
        f"{url}: no row has the id {names}{more}; give ids as in the column `id` of the label shards. Nothing was "
        "changed"
    )


def _replace(labelling: Labelling, shard: Shard) -> None:
    """Write a label shard again, without the labels."""
    store, record = labelling.store, labelling.record
    expected, before = store.stat(shard.name), footer.read(store, shard.name)
    label_shard = commit.LabelShard(
        shard,
        before.receipt.fingerprint,
        rows=cast("commit.Rows", record.file_parts.get("sink.rows", "all")),
        compression=cast("commit.Compression", field_of(record.pipeline, "sink", "compression") or "zstd"),
        metadata={name: entry for name, entry in before.entries.items() if name != "recordings"},
        file_id=before.receipt.file_id,
        texts=labelling.texts,
        rules=recorded_rules(record),
    )
    if rewrite(store, label_shard, before, expected=expected.version if expected else None) is None:
        raise RunError(f"{store.url}/{shard.name}: another process replaced it; run the same command again")
    if path := before.rest_path:  # no later label shard names it, and its messages may quote labels
        store.delete(path)
