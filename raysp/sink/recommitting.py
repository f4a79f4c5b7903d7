"""Error rows of committed shards, done once more: which they are, and how their results take their place.

Each attempt stages its results under an id of its own, so that nothing else is ever taken for them: neither leftovers
of the first labelling, nor what an attempt that was interrupted or given up has staged. An attempt replaces only the
very label shard that it was planned for; one that comes late finds another, and changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.shards import Piece, Shard
from raysp.errors import ChangedError
from raysp.sink import commit, failing, footer, stage
from raysp.sink.commit import RESULT_SCHEMA, LabelShard
from raysp.sink.label_rows import Cursor, in_order, read_labels, read_rest, stretches
from raysp.sink.receipts import ShardReceipt
from raysp.sink.recordings import Hashes, Versions
from raysp.sink.todo import Retry, Todo
from raysp.sink.word_errors import TextColumns
from raysp.storage.store import Store


def find_error_rows(store: Store, shards: Sequence[Shard], fingerprint: str) -> Iterator[Todo]:
    """Find the error rows of all label shards of this very input and pipeline.

    Each call begins an attempt of its own: what others have staged is not used, for it may hold the same errors.
    """

    def find(shard: Shard) -> Retry | None:
        if store.stat(shard.name) is None:
            return None
        try:
            found = footer.read(store, shard.name)
            receipt = footer.expect(store, found, shard, fingerprint)
        except ChangedError:
            return None
        return _retry(store, shard, found.write_id) if receipt.error else None

    retries = {shard: retry for shard, retry in zip(shards, commit.for_each(find, shards), strict=True) if retry}
    for shard, retry in retries.items():
        yield Todo(shard, tuple(piece for piece in shard.pieces if retry.of(piece)), retry)


def recommit(
    store: Store,
    shard: Shard,
    retry: Retry,
    *,
    fingerprint: str,
    source_columns: commit.SourceColumns,
    output_schema: pa.Schema,
    rows: commit.Rows = "all",
    compression: commit.Compression = "zstd",
    metadata: Mapping[str, str] | None = None,
    join: stage.Join | None = None,
    file_id: str = "",
    versions: Versions | None = None,
    texts: TextColumns | None = None,
) -> ShardReceipt:
    """Put the staged results of retried rows in their places; all other rows stay as they are, value for value.

    Arguments are those of `commit.commit`.

    Raises:
        RunError: the label shard is no longer the one that was to be retried, or results are missing.
    """
    label_shard = LabelShard(
        shard,
        fingerprint,
        source_columns,
        output_schema,
        rows,
        compression,
        metadata or {},
        join,
        file_id,
        replace=True,
        versions=versions,
        stage_id=retry.stage_id,
        texts=texts,
    )
    expected, before = store.stat(shard.name), footer.read(store, shard.name)
    if expected is None or before.write_id != retry.write_id:
        # As a rule it is this very commit that was tried twice; if not, the rest is for the next retry.
        receipt = footer.read_expected(store, shard, fingerprint)
    else:
        hashes = Hashes.decode(before.recordings, shard.num_rows)
        merged = _merged(store, label_shard, retry, hashes)
        written = commit.write(store, label_shard, merged, hashes, expected=expected.version)
        receipt = written or footer.read_expected(store, shard, fingerprint)
    with failing.passing("stage_removed"):
        stage.remove_listed(store, stage.listed(store, shard.name, shard.input_id, retry.stage_id))
    return receipt


def _retry(store: Store, shard: Shard, write_id: str) -> Retry | None:
    """Find the rows that are neither labelled nor skipped, in the label shard or beside it.

    `write_id` is that of the footer that was looked at: a label shard that was replaced since has another one, and
    whatever is planned for it here is never put into its place.
    """
    settled = np.zeros(shard.num_rows, bool)
    for table in chain(read_labels(store, shard, ["row", "status"]), read_rest(store, shard)):
        fine = pc.not_equal(table.column("status"), pa.scalar("error"))
        settled[table.column("row").filter(fine).to_numpy()] = True
    rows = tuple(np.flatnonzero(~settled).tolist())
    return Retry(commit.new_id(), rows, write_id) if rows else None


def _merged(store: Store, label_shard: LabelShard, retry: Retry, hashes: Hashes) -> Iterator[pa.Table]:
    """Yield the label shard's rows in their order, with the new results in their places."""
    shard = label_shard.shard
    labels = Cursor(read_labels(store, shard))
    rest = Cursor(read_rest(store, shard))
    for piece in shard.pieces:
        rows, first = retry.of(piece), piece.first
        fresh = Cursor(_fresh(store, label_shard, piece, rows, hashes))
        for old, end in stretches(labels, rest, first, piece.end):
            if (new := fresh.until(end)) is not None and new.num_rows:
                stays = pc.invert(pc.is_in(old.column("row"), value_set=new.column("row").combine_chunks()))
                new = pa.Table.from_arrays(new.columns, schema=old.schema)
                old = in_order(pa.concat_tables([old.filter(stays), new]))
            yield old
            first = end


def _fresh(
    store: Store, label_shard: LabelShard, piece: Piece, rows: Sequence[int], hashes: Hashes
) -> Iterator[pa.Table]:
    """Yield the retried rows of a piece as they are labelled now, some at a time."""
    if not rows:
        return
    source = commit.read_source(label_shard, piece).take([row - piece.first for row in rows])
    names = [*RESULT_SCHEMA.names, *label_shard.output_schema.names]
    first = 0
    for table in commit.read_staged(store, label_shard, piece, hashes, rows=rows):
        results = table.select(names)
        columns = [*source.slice(first, len(table)).columns, *results.columns]
        first += len(table)
        yield pa.Table.from_arrays(columns, names=[*source.column_names, *names])
