"""Which rows of a committed label shard are of files that were replaced since they were labelled."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.errors import AudioError, ShardError
from raysp.sink import footer
from raysp.sink.recordings import Hashes
from raysp.specs.pipeline import Pipeline
from raysp.storage.audio_root import AudioRoot
from raysp.storage.store import Store


@dataclass(frozen=True)
class Replaced:
    """How the files of a label shard's rows compare with those that are there."""

    rows: tuple[tuple[int, str], ...] = ()
    """That are of another version of their file, each with its path."""
    gone: tuple[tuple[int, str], ...] = ()
    """Whose file is no longer there, or may no longer be read: their labels are kept."""


def find_replaced(store: Store, pipeline: Pipeline, shard: Shard) -> Replaced:
    """Compare the files that a label shard's rows were made of with what is there now; nothing of them is read.

    Raises:
        ChangedError: the label shard is none of raysp.
        ShardError: the shard cannot be read.
        StoreError: the storage fails.
    """
    source = pipeline.source
    root = sources.open_audio_root(shard, source.audio_root, source.storage_options)
    hashes = footer.read(store, shard.name).recordings if root else ""
    if root is None or not hashes:
        return Replaced()
    known = Hashes.decode(hashes, shard.num_rows)
    paths = dict(_paths(pipeline, shard, root, known.is_read))
    current = root.versions(set(paths.values()))
    there = [(row, path) for row, path in paths.items() if path in current]
    differ = known.differ([row for row, _ in there], [current[path] for _, path in there])
    return Replaced(
        rows=tuple(one for one, is_other in zip(there, differ, strict=True) if is_other),
        gone=tuple((row, path) for row, path in paths.items() if path not in current),
    )


def _paths(
    pipeline: Pipeline, shard: Shard, root: AudioRoot, is_read: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, str]]:
    """Yield the rows that were read by path, and their paths below the root."""
    for piece in shard.pieces:
        if not is_read[piece.first : piece.end].any():
            continue
        paths = sources.read_paths(shard, piece, pipeline.source.audio, pipeline.source.storage_options)
        if len(paths) != piece.num_rows:
            raise ShardError(f"{shard.url}: rows {piece.first} to {piece.end} gave {len(paths)} rows")
        for row, path in enumerate(paths, piece.first):
            if is_read[row] and path is not None:
                try:
                    yield row, root.inside(path)
                except AudioError:  # it was read: so it was allowed, by another root
                    continue
