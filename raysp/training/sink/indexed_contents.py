"""Contents of the recordings of a shard as its index has them, and their comparison with the files of a later run.

A shard that names files does not change with them. So the index keeps the path and the version of each file, and a
digest of its content. A later run asks the store for the current versions, and reads a file again only if its version
is another one. A file that is missing is not compared: its row fails when it is read, and is counted.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.shards import AUDIO
from raysp.ops.recordings import Content, contents
from raysp.storage.audio_root import AudioRoot

_TYPES: Mapping[str, pa.DataType] = {"digest": pa.binary(), "path": pa.string(), "version": pa.string()}
CONTENTS = pa.schema(_TYPES)
"""Columns of contents: digest, path below the root and version of each row's recording."""
_AUDIO = "audio"


def table_of_contents(recordings: Sequence[Content | None]) -> pa.Table:
    """Return contents as a table of a row each, all null for rows that name no file."""
    named = [value if value is not None and value.path is not None else (None, None, None) for value in recordings]
    columns = zip(*named, strict=True) if named else ((), (), ())
    return pa.table([pa.array(*pair) for pair in zip(columns, CONTENTS.types, strict=True)], schema=CONTENTS)


def paths_of(table: pa.Table) -> list[str]:
    """Return the paths of files."""
    return [path for path in pc.unique(table.column("path")).to_pylist() if path is not None]


class Compared(NamedTuple):
    """Outcome of a comparison."""

    replaced: tuple[tuple[int, str], ...]
    """Rows whose recording has another content, each with its path."""
    current: pa.Table | None
    """Contents with current versions, if any is another one; None if all are the same."""
    has_new: bool = False
    """Whether a file is there that was missing."""


def compared(table: pa.Table, versions: Mapping[str, str], root: AudioRoot) -> Compared:
    """Compare contents with the files of now.

    Args:
        table: contents of the rows of a shard.
        versions: current versions of its files by path; missing files are omitted.
        root: folder of the paths.

    Raises:
        StoreError: the storage fails.
    """
    rows = [Content(*values) for values in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    has_new = any(row.version is None and row.path in versions for row in rows)
    versioned = ((row.path, row.version) for row in rows if row.path is not None and row.version is not None)
    other = {path for path, version in versioned if versions.get(path, version) != version}
    if not other:
        return Compared((), None, has_new)
    now = _contents(other, root)
    replaced: list[tuple[int, str]] = []
    current: list[Content] = []
    for row, before in enumerate(rows):
        after = before if before.path is None else now.get(before.path, before)
        if before.version is None or after.version is None:  # missing then or now
            after = before
        if after.digest != before.digest:
            replaced.append((row, str(before.path)))
        current.append(after)
    return Compared(tuple(replaced), table_of_contents(current), has_new)


def _contents(paths: Collection[str], root: AudioRoot) -> dict[str, Content]:
    """Return the contents of files by path."""
    ordered = sorted(paths)
    recordings = contents(pa.table({_AUDIO: with_paths(ordered)}), _AUDIO, root)
    return dict(zip(ordered, recordings, strict=True))


def with_paths(paths: Sequence[str | None]) -> "pa.Array[Any]":
    """Return a column of recordings that have only paths."""
    return pa.array([{"bytes": None, "path": path} for path in paths], AUDIO)
