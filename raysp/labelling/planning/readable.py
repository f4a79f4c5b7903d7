"""Check for corpora without a readable recording, before any work starts."""

import os
from collections.abc import Sequence

import pyarrow as pa

from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import PlanError, ShardError, StoreError
from raysp.labelling.planning.run_plan import Corpus
from raysp.sink.todo import Todo
from raysp.specs.pipeline import Pipeline, Shards
from raysp.words import count

SAMPLE_ROWS = 20


def refuse_without_recordings(corpus: Corpus, todo: Sequence[Todo], pipeline: Pipeline) -> None:
    """Raise if no row to label holds a recording and rows may not be read by path.

    Raises:
        PlanError: with one of the paths, and the remedy.
    """
    shards = [one.shard for one in todo if one.shard.num_rows]
    if not shards or any(shard.name not in corpus.without_bytes for shard in shards):
        return
    source = pipeline.source
    where = f"{shards[0].url}{' and others' if len(shards) > 1 else ''}"
    rows = count(sum(shard.num_rows for shard in shards), "row")
    raise PlanError(f"{where}: column {source.audio!r} holds no bytes in any of {rows}{_paths_of(shards[0], source)}")


def _paths_of(shard: Shard, source: Shards) -> str:
    """Return a text on the paths that the first rows hold instead of recordings, and the remedy."""
    first = Piece(0, min(SAMPLE_ROWS, shard.num_rows))
    try:
        found = [path for path in sources.read_paths(shard, first, source.audio, source.storage_options) if path]
    except (ShardError, StoreError, KeyError, IndexError, ValueError, pa.ArrowException):
        found = []
    if not found:
        return ", and no paths; expected recordings. Set source.audio to their column, or embed them"
    is_absolute = all(path.startswith("/") for path in found)
    root = os.path.commonpath([os.path.dirname(path) for path in found]) if is_absolute else "DIR"  # noqa: PTH120
    return (
        f", only paths such as {found[0]!r:.200}. Set the folder that contains them, such as "
        f"source.audio_root={root!r:.200}, or embed the recordings"
    )
