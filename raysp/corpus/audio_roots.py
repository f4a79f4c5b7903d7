"""The folders that confine the paths of a corpus's recordings."""

from raysp.corpus.shards import Options, Shard
from raysp.corpus.sources import kind_named
from raysp.storage.audio_root import AudioRoot, recordings_of
from raysp.storage.store import join_url, normalise


def audio_root(shard: Shard, root: str | None) -> str | None:
    """Return the folder that confines the paths of a shard's recordings; None if they are not read by path."""
    return kind_named(shard.kind).audio_root(shard) if root is None else root


def open_audio_root(shard: Shard, named_root: str | None, storage_options: Options = None) -> AudioRoot | None:
    """Open the folder that confines the paths of a shard's recordings; None if they are not read by path."""
    kind = kind_named(shard.kind)
    if kind.is_folder:
        return recordings_of(shard.url, storage_options, named_root)
    own = kind.audio_root(shard)
    root = own if named_root is None else named_root
    if root is None:
        return None
    from raysp.corpus.stored_rows import StoredRows

    below = "" if own is None else _below(own, root)
    return AudioRoot(root, storage_options, below=below, rows=StoredRows(storage_options))


def _below(folder: str, root: str) -> str:
    """Return the path of a folder in a root; empty if it is the root itself or not in it."""
    beginning = join_url(normalise(root), "")
    return folder.removeprefix(beginning) if folder.startswith(beginning) else ""
