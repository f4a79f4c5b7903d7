"""Export of files beside recordings: a folder of other files, of which none is replaced that an export has not written.

A file is the export's own as long as its content is one that was recorded before it was written. A file that a user
wrote or edited is kept, whenever an export was killed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from raysp import bounds
from raysp.errors import PlanError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.specs.values import JsonValue
from raysp.storage.store import HOME, Store, join_url, scheme_of
from raysp.storage.stores import open_store
from raysp.verbs.export.destination import AT_ONCE, DONE, NAMES, Destination, ShardFiles, ShardMark
from raysp.verbs.export.source_audio import Source

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of a file that may be the export's own."""
Hashes = Mapping[str, tuple[str, ...]]
"""Hashes of the contents that an export wrote, or is about to write, by path."""


@dataclass
class FilesBeside(ShardFiles):
    """The files of one label shard beside its recordings; `store` holds the records."""

    _: KW_ONLY
    folder: Store
    """Folder of the recordings."""

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files, each in one atomic step, after the hashes of their contents; keep those of others."""
        held = list(files)
        written = self._hashes()
        self._keep({**written, **{path: (*written.get(path, ()), _hash(data)) for path, data in held}})
        with ThreadPoolExecutor(AT_ONCE) as pool:
            are_own = pool.map(lambda one: self._put(one[0], one[1], written.get(one[0], ())), held)
            for (path, data), is_own in zip(held, are_own, strict=True):
                if is_own:
                    self.row_files.add(path)
                    self.num_bytes += len(data)
                else:
                    self.kept.append(path)

    def _put(self, path: str, data: bytes, written: tuple[str, ...]) -> bool:
        """Write a file; return False without a change if another one is there."""
        if self.folder.stat(path) is None and self.folder.create(path, data):
            return True
        found = self._content(path)
        if found is not None and found != data and _hash(found) in written:
            self.folder.replace(path, data)
            return True
        return found == data

    def _content(self, path: str) -> bytes | None:
        """Return the content of a file; None if it cannot be the export's own."""
        entry = self.folder.stat(path)
        return None if entry is None or entry.num_bytes > MOST_BYTES else self.folder.read(path)

    def remove_others(self, suffix: str, is_elsewhere: Callable[[str], bool]) -> None:
        """Remove unchanged files that an export of earlier labels wrote for the label shard; see `ShardFiles`."""
        written = self._hashes()
        for path in sorted(written.keys() - self.row_files):
            if path.endswith(suffix) and not is_elsewhere(path.removesuffix(suffix)):
                self.remove(path, written[path])
        self._keep({path: written[path][-1:] for path in self.row_files})

    def remove(self, path: str, written: tuple[str, ...]) -> None:
        """Remove a file if its content is one that was written."""
        found = self._content(path)
        if found is not None and _hash(found) in written:
            self.folder.delete(path)

    def _hashes(self) -> Hashes:
        return read_hashes(self.store, self._names)

    def _keep(self, hashes: Hashes) -> None:
        self.store.replace(self._names, json.dumps(hashes, sort_keys=True).encode())


def read_hashes(records: Store, name: str) -> Hashes:
    """Return the recorded hashes of a label shard's files; none if there is no record, or it is damaged."""
    if records.stat(name) is None:
        return {}
    try:
        found = bounds.parse_record(records.read(name))
    except ValueError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {path: tuple(map(str, hashes)) for path, hashes in items if isinstance(hashes, list)}


class Beside(Destination):
    """The folder of recordings as a destination, with the records of the export below `.raysp/`."""

    def __init__(self, folder: Store, records: Store) -> None:
        super().__init__(records)
        self._folder = folder

    @property
    def url(self) -> str:
        """Url of the folder of the recordings."""
        return self._folder.url

    def files_of(self, shard: str) -> ShardFiles:
        """Return the files of a label shard."""
        return FilesBeside(self.store, shard, folder=self._folder)

    def finish(self, mark: ShardMark) -> None:
        """Write the marker of a label shard, unless files of others are in the place of its own."""
        if not mark.kept:
            super().finish(mark)

    def _remove(self, record: Mapping[str, JsonValue]) -> None:
        """Remove the markers of an export, then its unchanged files, then their hashes."""
        found = [one.path for one in self.store.list(HOME)]
        for path in (path for path in found if path.startswith(DONE)):
            self.store.delete(path)
        for name in (path for path in found if path.startswith(NAMES)):
            files = FilesBeside(self.store, "", folder=self._folder)
            for path, written in read_hashes(self.store, name).items():
                files.remove(path, written)
            self.store.delete(name)


def open_beside(labelling: Labelling, source: Source, to: str) -> Beside:
    """Open the folder of a source's recordings as a destination.

    Raises:
        PlanError: the source is not one folder of recordings, or the folder is gone.
        TrustError: the sink's record, which names the folder, may not be used.
    """
    options = source.pipeline.source.storage_options
    if (folder := source.only_folder()) is None:
        raise PlanError(
            f"{labelling.url}: beside=True needs a source that is one folder of recordings, found "
            f"{', '.join(source.pipeline.source.urls)}; give a destination instead"
        )
    if not scheme_of(folder) and not Path(folder).is_dir():
        raise PlanError(f"{folder}: the folder of the recordings is no longer there; run the pipeline on its new place")
    records = open_store(join_url(folder, f"{HOME}beside/{to}"), options)
    return Beside(open_store(folder, options), records)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
