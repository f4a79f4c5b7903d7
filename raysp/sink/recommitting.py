"""Commits of staged shards, and of retries: finding the rows to label again, and putting their new results in place.

Each attempt of a retry stages its results under its own id. So it uses neither leftovers of the first labelling nor
results that an interrupted or abandoned attempt has staged. An attempt replaces only the label shard that it was
planned for. A late attempt finds another label shard and changes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import ERROR
from raysp.corpus.shards import Piece, Shard
from raysp.corpus.sources import cast_column
from raysp.errors import ChangedError, RunError, StoreError
from raysp.sink import commit, fault_injection, footer, stage
from raysp.sink.commit import RESULT_SCHEMA, LabelShard, Retry, Todo
from raysp.sink.footer import Hashes, LabelFooter
from raysp.sink.label_rows import Cursor, DamagedLabelsError, read_labels, read_rest, stretches
from raysp.sink.receipts import ShardReceipt
from raysp.sink.sorting import in_order
from raysp.storage.store import Store


def find_error_rows(
    store: Store, shards: Sequence[Shard], fingerprint: str, damaged: dict[str, str] | None = None
) -> Iterator[Todo]:
    """Yield the error rows of all label shards of this input and pipeline.

    Each call starts a new attempt: results staged by others are not used, because they may hold the same errors.

    Args:
        store: the sink.
        shards: the recorded shards.
        fingerprint: fingerprint of the pipeline.
        damaged: filled with the files that are no such label shards, or damaged ones, and the reasons.
    """

    def find(shard: Shard) -> Retry | None:
        if store.stat(shard.name) is None:
            return None
        try:
            labels = footer.read_expected(store, shard, fingerprint)
            return _retry(store, shard, labels.write_id) if labels.receipt.counts.errors else None
        except (ChangedError, DamagedLabelsError) as error:
            if damaged is not None:
                damaged[shard.name] = str(error)
            return None

    retries = {shard: retry for shard, retry in zip(shards, commit.for_each(find, shards), strict=True) if retry}
    for shard, retry in retries.items():
        yield Todo(shard, tuple(piece for piece in shard.pieces if retry.of(piece)), retry)


def commit_staged(store: Store, label_shard: LabelShard, retry: Retry | None = None) -> ShardReceipt:
    """Commit a shard whose pieces are all staged, or replace its label shard or retried rows of it.

    An existing label shard counts as success, and so does one that replaced the label shard of a retry meanwhile. A
    retry keeps the values of all other rows, and replaces nothing if no row changes, unless the whole shard is retried.

    Raises:
        ChangedError: another file is in the label shard's place.
        RunError: staged results are missing, or do not match the shard's rows and were removed.
    """
    shard = label_shard.shard
    staged = stage.listed(store, [shard], label_shard.stage_id or label_shard.fingerprint).get(shard.name, ())
    label_shard = replace(label_shard, staged=staged)
    # In this order: if the label shard is replaced between the two calls, the footer has another write id. Read the
    # other way round, the version of a newer label shard would be replaced.
    expected = store.stat(shard.name) if retry else None
    written = None
    # With staged results, a new label shard exists only if commits race. `publish` detects that.
    if (staged and not retry) or _is_planned(store, shard, retry):
        version = expected.version if expected else None
        try:
            if retry is None or retry.rows is None or version is None:
                written = commit.write_staged(store, label_shard, expected=version)
            else:
                written = rewrite(store, label_shard, footer.read(store, shard.name), retry, expected=version)
        except (RunError, StoreError):  # for example, another process has removed the stage
            if _is_planned(store, shard, retry):
                raise
    # Of a retry, usually this commit was tried twice. Otherwise the remaining rows are left to the next retry.
    receipt = written or footer.read_expected(store, shard, label_shard.fingerprint, label_shard.file_id).receipt
    with fault_injection.passing("stage_removed"):
        # Only those listed at the beginning: another run may have staged later ones.
        stage.remove(store, staged)
    return receipt


def _is_planned(store: Store, shard: Shard, retry: Retry | None) -> bool:
    """Return whether there is no label shard yet, or the one that a retry was planned for."""
    return store.stat(shard.name) is None if retry is None else _write_id(store, shard.name) == retry.write_id


def retry_whole(store: Store, shard: Shard) -> Todo:
    """Return a new attempt to label a shard again, in place of the label shard that is there, if any.

    Raises:
        ChangedError: the file in its place is not a label shard of raysp.
    """
    return Todo(shard, shard.pieces, Retry(footer.new_id(), None, _write_id(store, shard.name)))


def _write_id(store: Store, name: str) -> str:
    """Return the write id of a label shard; empty if there is none."""
    return "" if store.stat(name) is None else footer.read(store, name).write_id


def rewrite(
    store: Store, label_shard: LabelShard, before: LabelFooter, retry: Retry | None = None, *, expected: str | None
) -> ShardReceipt | None:
    """Write a label shard again from its rows, of which a retry replaces some.

    Returns None if another process replaced it, or if a retry changed no row.

    Args:
        store: the sink.
        label_shard: the label shard.
        before: its metadata.
        retry: the rows with other results, which are staged; None: all rows stay, but for labels of forgotten ids.
        expected: version of the label shard, read before its metadata.
    """
    hashes, changed = footer.hashes(store, label_shard.shard, before), list[Piece]()
    tables = _rows(store, label_shard, retry, hashes, changed)

    def is_needed() -> bool:
        return retry is None or bool(changed) or hashes.encode() != before.recordings

    return commit.write(store, label_shard, tables, hashes, expected=expected, is_needed=is_needed)


def _retry(store: Store, shard: Shard, write_id: str) -> Retry | None:
    """Return the error rows of a label shard and of the rows left out of it; None without such rows."""
    is_done = np.zeros(shard.num_rows, bool)
    for table in chain(read_labels(store, shard, ["row", "status"]), read_rest(store, shard)):
        fine = pc.not_equal(table.column("status"), pa.scalar(ERROR))
        is_done[table.column("row").filter(fine).to_numpy()] = True
    rows = tuple(np.flatnonzero(~is_done).tolist())
    return Retry(footer.new_id(), rows, write_id) if rows else None


def _rows(
    store: Store, label_shard: LabelShard, retry: Retry | None, hashes: Hashes, changed: list[Piece]
) -> Iterator[pa.Table]:
    """Yield the label shard's rows in order, with the new results of retried rows; pieces that changed are added."""
    shard = label_shard.shard
    labels = Cursor(read_labels(store, shard))
    rest = Cursor(read_rest(store, shard))
    for piece in shard.pieces:
        fresh = Cursor(_fresh(store, label_shard, piece, retry, hashes) if retry else iter(()))
        for old, end in stretches(labels, rest, piece.first, piece.end):
            if (new := fresh.until(end)) is not None and new.num_rows:
                is_retried = pc.is_in(old.column("row"), value_set=new.column("row").combine_chunks())
                new = pa.Table.from_arrays(
                    [cast_column(values, kind) for values, kind in zip(new.columns, old.schema.types, strict=True)],
                    schema=old.schema,
                )
                if _differ(old.filter(is_retried), new, label_shard):
                    changed.append(piece)
                old = in_order([old.filter(pc.invert(is_retried)), new])
            yield old


def _differ(before: pa.Table, after: pa.Table, label_shard: LabelShard) -> bool:
    """Return whether any row has another outcome or another label."""
    outcomes, outputs = RESULT_SCHEMA.names, label_shard.output_schema.names
    return any(before.select(names).to_pylist() != after.select(names).to_pylist() for names in (outcomes, outputs))


def _fresh(store: Store, label_shard: LabelShard, piece: Piece, retry: Retry, hashes: Hashes) -> Iterator[pa.Table]:
    """Yield the retried rows of a piece with their new labels, in batches."""
    if rows := retry.of(piece):
        source = commit.read_source(label_shard, piece).take([row - piece.first for row in rows])
        yield from commit.read_staged(store, label_shard, piece, source, hashes, retry.of)
