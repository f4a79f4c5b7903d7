"""Check of some recordings that are read by path: archived ones, and members of tar files, are refused before work."""

from collections.abc import Sequence

import pyarrow as pa

from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import AudioError, PlanError, ShardError, StoreError
from raysp.sink.todo import Todo
from raysp.specs.pipeline import Pipeline, Shards
from raysp.storage.store import ArchivedError, scheme_of

MANIFEST = "manifest"
TAR_NUMBER = "shard_id"
SAMPLED = 4
"""Recordings of the first shard that are tried; the first one that is not archived ends the check."""


def try_first_recordings(todo: Sequence[Todo], pipeline: Pipeline) -> None:
    """Open some recordings of the first shard with rows, if they are read by path and may be archived or in tar files.

    Raises:
        PlanError: all are archived, or none is a file; with one of the recordings, and the remedy.
    """
    source = pipeline.source
    shard = next((one.shard for one in todo if one.shard.num_rows), None)
    if shard is None:
        return
    root = sources.audio_root(shard, source.audio_root)
    if root is not None and scheme_of(root):
        _refuse_archived(shard, source)
    if shard.kind == MANIFEST and TAR_NUMBER in sources.column_names(shard, source.storage_options):
        _refuse_tarred(shard, source)


def _refuse_tarred(shard: Shard, source: Shards) -> None:
    """Raise if a manifest names members of tar files, as those of NeMo do: `shard_id` has the number of the file."""
    root = sources.open_audio_root(shard, source.audio_root, source.storage_options)
    assert root is not None
    missing = ""
    for path in _some_paths(shard, source):
        try:
            root.open(path)
        except AudioError as error:
            if error.error_type != "not_found":
                return
            missing = missing or path
        except StoreError:
            return  # the run reports it
        else:
            return
    if missing:
        raise PlanError(
            f"source: {shard.url}: its lines have {TAR_NUMBER!r}, as NeMo writes for recordings in tar files, and "
            f"{missing!r} is no file; unpack the tar files (audio_0.tar, ...) into the folder of the manifest, or set "
            "source.audio_root"
        )


def _refuse_archived(shard: Shard, source: Shards) -> None:
    """Raise if recordings on object storage are archived."""
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
