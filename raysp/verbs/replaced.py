"""Rows of a committed label shard whose files were replaced after they were labelled."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysp.corpus import audio_roots, sources
from raysp.corpus.shards import Shard
from raysp.errors import AudioError, ShardError
from raysp.sink import footer
from raysp.specs.pipeline import Pipeline
from raysp.storage.audio_root import AudioRoot
from raysp.storage.store import Store


@dataclass(frozen=True)
class Replaced:
    """Comparison of the files that a label shard's rows were made from with the current files."""

    rows: tuple[tuple[int, str], ...] = ()
    """Rows made from another version of their file, each with its path."""
    gone: tuple[tuple[int, str], ...] = ()
    """Rows whose file no longer exists or may no longer be read, each with its path: their labels are kept."""


def find_replaced(store: Store, pipeline: Pipeline, shard: Shard) -> Replaced:
    """Compare the versions of the files that a label shard's rows were made from with the current ones.

    The contents of the files are not read.

    Raises:
        ChangedError: the file is not a label shard of raysp.
        ShardError: the shard cannot be read.
        StoreError: the storage fails.
    """
    source = pipeline.source
    root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
    label_footer = footer.read(store, shard.name) if root else None
    if root is None or label_footer is None or not label_footer.recordings:
        return Replaced()
    hashes = footer.hashes(store, shard, label_footer)
    paths = dict(_paths(pipeline, shard, root, hashes.is_read))
    current = root.versions(set(paths.values()))
    there = [(row, path) for row, path in paths.items() if path in current]
    differ = hashes.differ([row for row, _ in there], [current[path] for _, path in there])
    return Replaced(
        rows=tuple(row for row, is_other in zip(there, differ, strict=True) if is_other),
        gone=tuple((row, path) for row, path in paths.items() if path not in current),
    )


def _paths(
    pipeline: Pipeline, shard: Shard, root: AudioRoot, is_read: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, str]]:
    """Yield the rows that were read by path, with their paths below the root."""
    for piece in shard.pieces:
        if not is_read[piece.first : piece.end].any():
            continue
        paths = sources.read_paths(shard, piece, pipeline.source.audio, pipeline.source.storage_options)
        if len(paths) != piece.num_rows:
            raise ShardError(
                f"{shard.url}: read {len(paths)} paths of rows {piece.first} to {piece.end}, expected {piece.num_rows}"
            )
        for row, path in enumerate(paths, piece.first):
            if is_read[row] and path is not None:
                try:
                    yield row, root.inside(path)
                except AudioError:  # it was read before, so another root allowed it
                    continue
