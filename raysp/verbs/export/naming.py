"""Names of the files of rows of an export, from paths of recordings or ids."""

from dataclasses import dataclass

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.errors import PlanError, ShardError, StoreError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.specs.values import JsonValue
from raysp.verbs.export.export_formats import ID, PATH, suffix_of
from raysp.verbs.export.row_names import IdNames, PathNames, RowNames, first_rows_of
from raysp.verbs.export.source_audio import Source


@dataclass(frozen=True)
class Named:
    """Names of the files of rows."""

    names: RowNames
    kind: str
    """Source of the names, "path" or "id"."""
    not_by_path: str = ""
    """Reason why recordings that were read by path do not name the files, if that was not asked for."""


def row_names(labelling: Labelling, source: Source, to: str, given: JsonValue) -> Named:
    """Return the names of the files of rows.

    Args:
        labelling: the sink.
        source: its source.
        to: the format.
        given: "path", "id", or None for paths if there are any and they can be read.

    Raises:
        PlanError: paths are asked for, and no row has one, or the source may not be read.
        ShardError, StoreError: paths are asked for, and a shard changed since it was labelled, or cannot be read.
    """
    suffix = suffix_of(to)
    by_id = Named(IdNames(suffix), ID)
    if given == ID:
        return by_id
    has_paths = source.may_have_paths()
    if not has_paths and given == PATH:
        raise PlanError(
            f"{labelling.url}: names='path' needs rows that were read by path or from tar files, found recordings "
            "inside of rows; leave it out, and ids name the files"
        )
    try:
        return Named(_by_path(labelling, source, suffix), PATH) if has_paths else by_id
    except (PlanError, ShardError, StoreError) as error:
        if given == PATH:
            raise
        return Named(by_id.names, ID, str(error))


def beside_names(labelling: Labelling, source: Source, to: str) -> Named:
    """Return the names of files beside recordings: those of the recordings, even if other systems do not allow them."""
    suffix, first_rows = suffix_of(to), first_rows_of(labelling.shards.values())
    names = PathNames(_finished(labelling), first_rows, source.names, IdNames(suffix), suffix, as_they_are=True)
    return Named(names, PATH)


def _finished(labelling: Labelling) -> list[Shard]:
    return [shard for shard in labelling.shards.values() if shard.name in labelling.done]


def _by_path(labelling: Labelling, source: Source, suffix: str) -> RowNames:
    shards = _finished(labelling)
    are_paths = any(sources.kind_of(shard).ids_are_paths for shard in shards)
    if all(root is None for root in source.roots.values()):
        return IdNames(suffix, are_paths=True)
    others = IdNames(suffix, "~", are_paths)
    return PathNames(shards, first_rows_of(labelling.shards.values()), source.names, others, suffix)
