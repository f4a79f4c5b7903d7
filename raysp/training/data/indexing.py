"""Index of a shard: durations of its rows, numbers of labels, and why rows are left out."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.columns import SECONDS
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ShardError
from raysp.labelling import assembly
from raysp.models.labelled_passes import CheckpointSummary
from raysp.ops.rows import OK, RowStatus
from raysp.sink.recording_versions import current_hashes
from raysp.specs.pipeline import ReadsCorpus, Shards
from raysp.text.targets import Targets
from raysp.training.sink.source_index import TRAINED, ShardIndex
from raysp.training.specs.recipe import Evaluation, Finetune
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

TOO_SHORT = "too_short"
"""Reason: the recording is shorter than the shortest input of the model."""


def index_shard(
    recipe: Finetune,
    checkpoint: CheckpointSummary,
    shard: Shard,
    targets: Targets,
    min_samples: int,
    *,
    decoder: "Decoder | None" = None,
) -> ShardIndex:
    """Return the index of a shard.

    Args:
        recipe: the recipe.
        checkpoint: description of the checkpoint to begin with.
        shard: the shard.
        targets: targets of the rows; it counts nothing but the values of this shard.
        min_samples: samples of the shortest row.
        decoder: decoding functions; None: of this process.

    Raises:
        ShardError: the shard cannot be read, or changed since it was planned.
        StoreError: its store fails.
    """
    hashes = current_hashes(recipe.source, shard)  # before its rows are read, so that no later version counts as read
    rows: list[tuple[float, int, str]] = []
    trained_on = hashlib.sha256()
    for table, statuses in _measured(recipe, checkpoint, shard, decoder):
        for row_status, value in zip(statuses, values_of(recipe, table), strict=True):
            labels, reason = _judge(row_status, value, targets, checkpoint, min_samples)
            rows.append((row_status.seconds or 0.0, labels, reason))
            if reason == TRAINED:
                trained_on.update(f"{value!r}\0".encode(errors="surrogatepass"))
    return ShardIndex.of(shard, rows, hashes, targets.counts, trained_on.hexdigest()[:16])


def index_sounds(source: Shards, shard: Shard) -> ShardIndex:
    """Return the versions of the recordings of a shard of sounds as an index without other facts.

    Raises:
        ShardError, StoreError: as `index_shard`.
    """
    return ShardIndex.of(shard, [(0.0, 0, TRAINED)] * shard.num_rows, current_hashes(source, shard))


def _measured(
    recipe: Finetune, checkpoint: CheckpointSummary, shard: Shard, decoder: "Decoder | None"
) -> Iterator[tuple[pa.Table, list[RowStatus]]]:
    """Yield the rows of a shard with their outcomes, by the seconds of its label shard, else by headers."""
    op = assembly.measuring(recipe, checkpoint, shard, late=recipe.flow.late, decoder=decoder)
    has_durations = recipe.source.labels is not None and not recipe.flow.late
    first = 0
    for piece in shard.pieces:
        for table in read_batches(recipe, shard, piece, with_audio=not has_durations):
            seconds = table.column(SECONDS).to_pylist() if has_durations else None
            yield table, op.measure(table, first) if seconds is None else op.judge(table, first, seconds)
            first += table.num_rows


def read_batches(work: ReadsCorpus, shard: Shard, piece: Piece, *, with_audio: bool = True) -> Iterator[pa.Table]:
    """Yield the columns of a piece that a recipe or an evaluation reads, some megabytes of rows at a time, in order.

    Args:
        work: the recipe or evaluation.
        shard: the shard.
        piece: the piece.
        with_audio: whether recordings are read; if not, the seconds of the label shard are.

    Raises:
        ShardError: the shard cannot be read, or changed since it was planned.
        StoreError: its store fails.
    """
    source = work.source
    columns = {*assembly.decoded_columns(work, shard), *work.kept}
    if not with_audio:
        columns = columns - {source.audio, *sources.kind_named(shard.kind).excerpt_columns} | {SECONDS}
    num_rows = 0
    batches = sources.read_batches(
        shard, piece, sorted(columns), source.storage_options, (source.audio,), audio_root=source.audio_root
    )
    for batch in batches:
        num_rows += batch.num_rows
        yield batch
    if num_rows != piece.num_rows:
        actual = count(num_rows, "row")
        raise ShardError(f"{shard.url}: read {actual} from {piece.first} to {piece.end}, expected {piece.num_rows}")


def values_of(work: Finetune | Evaluation, table: pa.Table) -> Iterator[object]:
    """Yield the values from which targets are made, bytes as UTF-8 text; None if rows have no targets."""
    if work.target is None:
        yield from [None] * table.num_rows
    else:
        yield from map(_as_text, table.column(work.target).to_pylist())


def _as_text(value: object) -> object:
    """Return bytes as a text; other values unchanged."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _judge(
    row_status: RowStatus, value: object, targets: Targets, checkpoint: CheckpointSummary, min_samples: int
) -> tuple[int, str]:
    """Return the number of labels of a row, and the reason for which it is left out."""
    if row_status.status != OK:
        return 0, row_status.error_type or row_status.status
    num_samples = round((row_status.seconds or 0.0) * checkpoint.sample_rate)
    if num_samples < min_samples:
        return 0, TOO_SHORT
    target = targets(value)
    reason = target.reason or targets.misfit(target, checkpoint.num_frames(num_samples))
    return len(target.ids), reason or TRAINED
