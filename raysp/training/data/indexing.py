"""Index of a shard: durations of its rows, numbers of labels, and why rows are left out."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.columns import SECONDS
from raysp.corpus import audio_roots, sources
from raysp.corpus.shards import Options, Piece, Shard, place_of
from raysp.errors import ShardError
from raysp.labelling import assembly
from raysp.models.labelled_passes import CheckpointSummary
from raysp.ops.recordings import Content, contents
from raysp.ops.rows import OK, RowStatus
from raysp.specs.pipeline import ReadsCorpus
from raysp.storage.audio_root import AudioRoot
from raysp.storage.opened import END_BYTES, content_of, digest_of, sampled
from raysp.storage.store import LocalStore
from raysp.text.targets import Targets
from raysp.training.sink.index_record import TRAINED, ShardIndex
from raysp.training.sink.indexed_contents import table_of_contents, with_paths
from raysp.training.specs.recipe import Evaluation, Finetune
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder, Decoding

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
    seconds: list[float] = []
    num_labels: list[int] = []
    reasons: list[str] = []
    trained_on, recordings = hashlib.sha256(), hashlib.sha256()
    op = assembly.measuring(recipe, checkpoint, shard, late=recipe.flow.late, decoder=decoder)
    named: list[Content] = []
    if _has_durations(recipe):
        recordings.update(_content_of_files(recipe, shard))
        named = _named_contents(recipe, shard, op.root)
    for table, statuses in _measured(recipe, shard, op):
        if recipe.source.audio in table.column_names:
            named += contents(table, recipe.source.audio, op.root)
        of_rows = named[len(seconds) : len(seconds) + table.num_rows]
        for row_status, value, content in zip(statuses, values_of(recipe, table), of_rows, strict=True):
            labels, reason = _judge(row_status, value, targets, checkpoint, min_samples)
            seconds.append(row_status.seconds or 0.0)
            num_labels.append(labels)
            reasons.append(reason)
            if reason == TRAINED:
                trained_on.update(f"{value!r}\0".encode(errors="surrogatepass"))
                recordings.update(content.digest)
    hashes = trained_on.hexdigest()[:16], recordings.hexdigest()[:16]
    return ShardIndex.of(seconds, num_labels, reasons, targets.counts, *hashes, table_of_contents(named))


def index_sounds(work: ReadsCorpus, shard: Shard) -> ShardIndex:
    """Return the contents of the recordings of a shard of sounds as an index without other facts.

    Raises:
        ShardError, StoreError: as `index_shard`.
    """
    source, recordings = work.source, list[Content]()
    root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
    for piece in shard.pieces:
        for table in read_batches(work, shard, piece):
            recordings += contents(table, source.audio, root)
    digest = hashlib.sha256(b"".join(content.digest for content in recordings)).hexdigest()[:16]
    nothing = [0] * len(recordings)
    return ShardIndex.of(nothing, nothing, [TRAINED] * len(recordings), {}, "", digest, table_of_contents(recordings))


def _has_durations(recipe: Finetune) -> bool:
    """Return whether durations come from label shards, so that no recording is read."""
    return recipe.source.labels is not None and not recipe.flow.late


def _content_of_files(recipe: Finetune, shard: Shard) -> bytes:
    """Return digests of the files that hold the recordings of a shard, for recordings that are not read."""
    files = sources.kind_named(shard.kind).files_of(shard)
    return b"".join(_content_of_file(url, recipe.source.storage_options) for url in files)


def _named_contents(recipe: Finetune, shard: Shard, root: AudioRoot | None) -> list[Content]:
    """Return the contents of the files that rows of a shard name."""
    source, recordings = recipe.source, list[Content]()
    for piece in shard.pieces:
        paths: Sequence[str | None] = [None] * piece.num_rows
        if root is not None:
            paths = sources.read_paths(shard, piece, source.audio, source.storage_options)
        recordings += contents(pa.table({source.audio: with_paths(paths)}), source.audio, root)
    return recordings


def _content_of_file(url: str, storage_options: Options) -> bytes:
    store, name = place_of(url, storage_options)
    opened = store.open_version(name, END_BYTES)
    if opened is None:
        raise ShardError(f"{url}: this file of a shard is missing; restore it")
    parts = sampled(opened.file) if isinstance(store, LocalStore) else [content_of(opened.entry).encode()]
    return digest_of(*parts)


def _measured(recipe: Finetune, shard: Shard, op: "Decoding") -> Iterator[tuple[pa.Table, list[RowStatus]]]:
    """Yield the rows of a shard with their outcomes, by the seconds of its label shard, else by headers."""
    has_durations = _has_durations(recipe)
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
