"""Names of the files of rows of an export, from paths of recordings or ids."""

from dataclasses import dataclass

from raysp.corpus import sources
from raysp.errors import PlanError, ShardError, StoreError
from raysp.verbs.export.row_names import IdNames, PathNames, RowNames
from raysp.verbs.export.source_audio import Source

ID, PATH = "id", "path"
"""Ways to name the files of rows."""


@dataclass(frozen=True)
class Named:
    """Names of the files of rows."""

    names: RowNames
    kind: str
    """Source of the names, "path" or "id"."""
    not_by_path: str = ""
    """Reason why recordings that were read by path do not name the files, unless ids were requested."""


def row_names(source: Source, suffix: str, kind: str | None) -> Named:
    """Return the names of the files of rows.

    Args:
        source: source of the sink.
        suffix: suffix of the files.
        kind: "path", "id", or None for paths if there are any and they can be read.

    Raises:
        PlanError: paths are asked for, and no row has one, or the source may not be read.
        ShardError, StoreError: paths are asked for, and a shard changed since it was labelled, or cannot be read.
    """
    if source.is_beside:  # the names of the recordings, even if other systems do not allow them
        return Named(PathNames(source, IdNames(suffix), as_they_are=True), PATH)
    by_id = Named(IdNames(suffix), ID)
    if kind == ID:
        return by_id
    has_paths = source.may_have_paths()
    if not has_paths and kind == PATH:
        raise PlanError(
            f"{source.labelling.url}: names='path' needs rows that were read by path or from tar files, found "
            "recordings inside of rows; leave it out, and ids name the files"
        )
    try:
        return Named(_by_path(source, suffix), PATH) if has_paths else by_id
    except (PlanError, ShardError, StoreError) as error:
        if kind == PATH:
            raise
        return Named(by_id.names, ID, str(error))


def _by_path(source: Source, suffix: str) -> RowNames:
    are_paths = any(sources.kind_named(shard.kind).ids_are_paths for shard in source.labelling.finished_shards)
    if all(root is None for root in source.roots.values()):
        return IdNames(suffix, are_paths=True)
    return PathNames(source, IdNames(suffix, "~", are_paths))
