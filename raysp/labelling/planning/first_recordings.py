"""Check of some recordings that are read by path: a corpus whose recordings are archived is refused before work."""

from collections.abc import Sequence

import pyarrow as pa

from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import AudioError, PlanError, ShardError, StoreError
from raysp.sink.todo import Todo
from raysp.specs.pipeline import Pipeline, Shards
from raysp.storage.store import ArchivedError, scheme_of

SAMPLED = 4
"""Recordings of the first shard that are tried; the first one that is not archived ends the check."""


def refuse_archived(todo: Sequence[Todo], pipeline: Pipeline) -> None:
    """Raise if some recordings of the first shard are read by path from object storage and are all archived.

    Raises:
        PlanError: with one of the recordings, and the remedy.
    """
    source = pipeline.source
    for shard in (one.shard for one in todo if one.shard.num_rows):
        root = sources.audio_root(shard, source.audio_root)
        if root is not None and scheme_of(root):
            _refuse_archived(shard, source)
        return


def _refuse_archived(shard: Shard, source: Shards) -> None:
    root = sources.open_audio_root(shard, source.audio_root, source.storage_options)
    assert root is not None
    archived: ArchivedError | None = None
    for path in _some_paths(shard, source):
        try:
            root.open(path)
        except ArchivedError as error:
            archived = archived or error
        except (AudioError, StoreError):
            continue  # the row or the run reports it
        else:
            return
    if archived is not None:
        raise PlanError(f"source: {archived}")


def _some_paths(shard: Shard, source: Shards) -> list[str]:
    piece = Piece(shard.pieces[0].first, shard.pieces[0].end)
    try:
        paths = [
            path for path in sources.read_paths(shard, piece, source.audio, source.storage_options) if path is not None
        ]
    except (ShardError, StoreError, KeyError, IndexError, ValueError, pa.ArrowException):
        return []
    return paths[:: max(1, -(-len(paths) // SAMPLED))]
