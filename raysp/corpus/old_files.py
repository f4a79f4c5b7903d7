"""Folders whose Parquet files are not all current, which sources refuse.

A table of Delta Lake, Iceberg or Hudi keeps files whose rows were deleted or replaced, and a cache of the hub keeps a
folder for each revision: read as plain folders they would give old rows beside the current ones.
"""

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from raysp.bounds import shortened
from raysp.errors import ShardError, StoreError
from raysp.storage.store import join_url
from raysp.storage.stores import open_store

Options = Mapping[str, object] | None


class _Table(NamedTuple):
    name: str
    place: str
    """Prefix of the paths of the files that mark a table, in its folder."""
    mark: re.Pattern[str]
    """A path in a table; its first group is the folder of the table with a slash."""
    lister: str = ""
    """How current files are listed."""


_TABLES = (
    _Table(
        "a Delta Lake table",
        "_delta_log/",
        re.compile(r"((?:.*/)?)_delta_log(?:/.*)?"),
        " (deltalake: DeltaTable(...).file_uris())",
    ),
    _Table(
        "an Iceberg table",
        "metadata/",
        re.compile(r"((?:.*/)?)metadata/[^/]*\.metadata\.json"),
        " (pyiceberg: table.inspect.data_files())",
    ),
    _Table("a Hudi table", ".hoodie/", re.compile(r"((?:.*/)?)\.hoodie(?:/.*)?")),
)
_SNAPSHOT = re.compile(r"(.*/(?:datasets|models|spaces)--[^/]+)/snapshots/([^/]+)/.+")


def refuse_tables(
    root: str, shards: Sequence[str], seen: Collection[str], storage_options: Options, *, saw_root: bool
) -> None:
    """Raise if shards lie in a table with a log of its own.

    Args:
        root: folder of the listing.
        shards: paths of the shards.
        seen: paths of all files and folders that the listing saw, hidden ones included.
        storage_options: options of the folder's storage.
        saw_root: whether the listing saw all files of the root.

    Raises:
        ShardError: with the kind of table and the remedy.
    """
    unseen = [] if saw_root else [root]
    above = root  # a partition (`lang=en`) or the data of a table
    while (name := above.rpartition("/")[2]) == "data" or "=" in name:
        above = above.rpartition("/")[0]
        unseen.append(above)
    for table in _TABLES:
        folders = sorted({match[1] for path in seen if (match := table.mark.fullmatch(path))})
        marked = (
            join_url(root, parent).rstrip("/") for parent in folders if any(path.startswith(parent) for path in shards)
        )
        place = next(marked, None) or next(
            (parent for parent in unseen if _is_marked(parent, table, storage_options)), None
        )
        if place is not None:
            raise ShardError(
                f"{place}: is {table.name}, whose folder also holds files with rows that were deleted or replaced; "
                f"expected files that are all current. Export the table as plain Parquet, or "
                f"list its current files in source.url{table.lister}"
            )


def _is_marked(folder: str, table: _Table, storage_options: Options) -> bool:
    with suppress(StoreError):
        entries = open_store(folder, storage_options).list(table.place)
        return any(table.mark.fullmatch(entry.path) for entry in entries)
    return False


def refuse_revisions(root: str, paths: Sequence[str], storage_options: Options) -> None:
    """Raise if files are of several revisions of a repository in a cache of the Hugging Face hub.

    Raises:
        ShardError: with the revisions, and the folder of the main one.
    """
    revisions: dict[str, set[str]] = {}
    for path in paths:
        if match := _SNAPSHOT.fullmatch(join_url(root, path)):
            revisions.setdefault(match[1], set()).add(match[2])
    for place, names in sorted(revisions.items()):
        if len(names) > 1:
            main = _main(place, storage_options)
            chosen = main if main in names else min(names)
            raise ShardError(
                f"{place}: holds snapshots of {len(names)} revisions ({', '.join(map(shortened, sorted(names)[:5]))}), "
                "with the same rows in several; expected one. Give its folder: "
                f"source.url={posixpath.join(place, 'snapshots', chosen)!r}"
            )


def _main(place: str, storage_options: Options) -> str:
    """Return the revision of the main branch; empty if it is not recorded."""
    with suppress(StoreError):
        store = open_store(place, storage_options)
        if (entry := store.stat("refs/main")) is not None and entry.num_bytes < 1000:
            return store.read("refs/main").decode(errors="replace").strip()
    return ""
