"""Versions of the files that rows of a shard are read from, compared with the versions of an earlier run."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysp.corpus import audio_roots, sources
from raysp.corpus.shards import Shard
from raysp.errors import AudioError, ShardError
from raysp.sink import footer
from raysp.sink.footer import Hashes
from raysp.specs.pipeline import Shards
from raysp.storage.audio_root import AudioRoot
from raysp.storage.store import Store


@dataclass(frozen=True)
class Replaced:
    """Comparison of the files that rows were made from with the current files."""

    rows: tuple[tuple[int, str], ...] = ()
    """Rows made from another version of their file, each with its path."""
    gone: tuple[tuple[int, str], ...] = ()
    """Rows whose file no longer exists or may no longer be read, each with its path."""


def replaced_since_labelled(store: Store, source: Shards, shard: Shard) -> Replaced:
    """Compare the files that the rows of a label shard were made from with the current ones.

    Raises:
        ChangedError: the file is not a label shard of raysp.
        ShardError, StoreError: as `find_replaced`.
    """
    if audio_roots.audio_root(shard, source.audio_root) is None:
        return Replaced()
    label_footer = footer.read(store, shard.name)
    return find_replaced(footer.hashes(store, shard, label_footer), source, shard)


def find_replaced(hashes: Hashes, source: Shards, shard: Shard) -> Replaced:
    """Compare the versions of the files that a shard's rows were made from with the current ones.

    The contents of the files are not read.

    Raises:
        ShardError: the shard cannot be read.
        StoreError: the storage fails.
    """
    paths, versions = _versions(source, shard, hashes.is_read)
    differ = hashes.differ([*versions], [*versions.values()])
    return Replaced(
        rows=tuple((row, paths[row]) for row, is_other in zip(versions, differ, strict=True) if is_other),
        gone=tuple((row, path) for row, path in paths.items() if row not in versions),
    )


def current_hashes(source: Shards, shard: Shard) -> Hashes:
    """Return the hashes of the versions of the files that a shard's rows name; missing and refused ones have none.

    Raises:
        ShardError, StoreError: as `find_replaced`.
    """
    hashes = Hashes.zeros(shard.num_rows)
    _, versions = _versions(source, shard, np.ones(shard.num_rows, np.bool_))
    hashes.set([*versions], [*versions.values()])
    return hashes


def _versions(source: Shards, shard: Shard, wanted: npt.NDArray[np.bool_]) -> tuple[dict[int, str], dict[int, str]]:
    """Return the paths of wanted rows that name a file, and the current versions of the files that exist, by row."""
    root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
    if root is None or not wanted.any():
        return {}, {}
    paths = dict(_paths(source, shard, root, wanted))
    current = root.versions(set(paths.values()))
    return paths, {row: current[path] for row, path in paths.items() if path in current}


def _paths(source: Shards, shard: Shard, root: AudioRoot, wanted: npt.NDArray[np.bool_]) -> Iterator[tuple[int, str]]:
    """Yield wanted rows that name a file, with their paths below the root."""
    for piece in shard.pieces:
        if not wanted[piece.first : piece.end].any():
            continue
        paths = sources.read_paths(shard, piece, source.audio, source.storage_options)
        if len(paths) != piece.num_rows:
            raise ShardError(
                f"{shard.url}: read {len(paths)} paths of rows {piece.first} to {piece.end}, expected {piece.num_rows}"
            )
        for row, path in enumerate(paths, piece.first):
            if wanted[row] and path is not None:
                try:
                    yield row, root.inside(path)
                except AudioError:  # the root allowed it when it was read, or never
                    continue
