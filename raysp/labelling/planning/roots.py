"""Root of a sink: the folder that its label shards are named relative to, the same in every run.

With another root the same shards would get other names, and readers of the sink would see their rows twice.
"""

from collections.abc import Iterable, Mapping, Sequence

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError
from raysp.labelling.planning.label_shards import Found


def root_of(shards: Iterable[Shard]) -> str | None:
    """Return the root that recorded shards are named relative to; None if they do not determine it."""
    return next((root for shard in shards if (root := _root_of(shard)) is not None), None)


def _root_of(shard: Shard) -> str | None:
    """Return a shard's url without its file and the folders of its name; the url of an audio folder has no file."""
    *folders, name = shard.name.split("/")
    kind = sources.kind_of(shard)
    *parts, file = [*shard.url.split("/"), ""] if kind.is_folder else shard.url.split("/")
    is_other_file = not kind.is_sliced and f"{kind.stem(file)}.parquet" != name
    if is_other_file or (folders and parts[-len(folders) :] != folders):
        return None
    return "/".join(parts[: len(parts) - len(folders)]) or "/"


def check_root(
    sink: str, recorded_root: str | None, root: str, found: Sequence[Found], recorded: Mapping[str, Shard]
) -> None:
    """Raise unless a listing names its label shards as the sink does.

    A corpus that moved as a whole has another root and the same names, which is allowed.

    Args:
        sink: url of the sink.
        recorded_root: root of the sink; None: unknown.
        root: root of the listing.
        found: the listing.
        recorded: shards of earlier plans by name.

    Raises:
        ChangedError: the names differ; the message has both roots.
    """
    root_before = recorded_root or root_of(recorded.values())
    if not recorded or root_before in (None, root) or _is_moved(found, recorded):
        return
    raise ChangedError(
        f"{sink}: its label shards are named relative to {root_before!r}, this source's to {root!r}; shards "
        f"under a second name would be labelled twice. Set source.root={root_before!r}, undo the change of source.url, "
        "or use another sink",
        (f"source.root: {root_before!r} -> {root!r}",),
    )


def _is_moved(found: Sequence[Found], recorded: Mapping[str, Shard]) -> bool:
    """Return whether every recorded shard is listed with its name and content, and never with another name."""
    contents = {one.name: (one.num_bytes, one.version) for one in found}
    names = {(one.url, one.part): one.name for one in found}
    return all(
        contents.get(name) == (shard.num_bytes, shard.version)
        and names.get((shard.url, _slice_of(shard)), name) == name
        for name, shard in recorded.items()
    )


def _slice_of(shard: Shard) -> str:
    """Return the part of a shard as a listing has it: that of a whole file is known after its survey only."""
    return shard.part if sources.kind_of(shard).is_sliced else ""


def named_twice(shards: Iterable[Shard]) -> list[tuple[str, list[str]]]:
    """Return the url and the names of every shard with rows that is recorded under more than one name."""
    names: dict[tuple[str, str], list[str]] = {}
    for shard in (one for one in shards if one.num_rows):
        names.setdefault((shard.url, shard.part), []).append(shard.name)
    return [(url, sorted(found)) for (url, _), found in names.items() if len(found) > 1]
