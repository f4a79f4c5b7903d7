"""Confinement of untrusted paths, of recordings and of files next to them, to a folder; the versions of its files.

One name may be stored in several Unicode normal forms, such as NFC by Linux and NFD by macOS.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol
from urllib.parse import quote, unquote

import pyarrow as pa

from raysp import bounds
from raysp.errors import AudioError, StoreError
from raysp.storage.opened import Entry, Opened
from raysp.storage.store import (
    KEYED,
    SCHEME,
    LocalStore,
    RefusedError,
    Store,
    explain,
    join_url,
    normalise,
    scheme_of,
)
from raysp.storage.stores import open_store


def canonical(path: str) -> str:
    """Return a path in the form NFC, by which names in any form are compared."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def other_forms(path: str) -> list[str]:
    """Return the path in the forms NFC and NFD, without the path itself."""
    forms = dict.fromkeys(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return [form for form in forms if form != path]


def matched(named: Iterable[str], there: Iterable[str]) -> Mapping[str, str]:
    """Return existing names by the names asked for, where the two differ in their Unicode normal form only.

    A name is matched if neither it nor the existing one has an exact match, and each is the only one left with its NFC.
    """
    named, there = {*named}, {*there}
    if all(map(str.isascii, named)):
        return {}
    missing, free = _by_form(named - there), _by_form(there - named)
    pairs = ((missing[form], free.get(form, [])) for form in missing)
    return {names[0]: existing_names[0] for names, existing_names in pairs if len(names) == len(existing_names) == 1}


def _by_form(paths: Iterable[str]) -> dict[str, list[str]]:
    by_form: dict[str, list[str]] = {}
    for path in paths:
        if not path.isascii():
            by_form.setdefault(canonical(path), []).append(path)
    return by_form


def existing(path: str, exists: Callable[[str], bool]) -> list[str]:
    """Return the paths that exist in other forms."""
    return [form for form in other_forms(path) if exists(form)]


AT_ONCE = 16
ENTRIES_A_FILE = 12
"""Entries listed in the time of one `stat`: a page of 1,000 takes as long as about 80 files, 16 at once."""
WORTH_LISTING = 80
LEAST_PARTS = 3
"""Parts of a path from which a folder is narrow enough to be suggested: `/` and homes are not."""


def version_of(entry: Entry) -> str:
    """Return the identifier of a file's content: its size, and its etag or modification time."""
    return f"{entry.num_bytes}:{entry.version}"


def versions(store: Store, paths: Collection[str]) -> dict[str, str]:
    """Return the current versions of files by path. Missing and refused ones are omitted.

    Args:
        store: their store.
        paths: their paths.

    Raises:
        StoreError: the storage fails.
    """
    by_path: dict[str, str] = {}
    unlisted: list[str] = []
    is_keyed = scheme_of(store.url) in KEYED
    for _, group in groupby(sorted(set(paths)), lambda path: path.rpartition("/")[0]):
        in_folder = list(group)
        listed, rest = _list(store, in_folder) if is_keyed and len(in_folder) >= WORTH_LISTING else ({}, in_folder)
        by_path |= listed
        unlisted += rest
    slices = [unlisted[first::AT_ONCE] for first in range(min(AT_ONCE, len(unlisted)))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for answers in pool.map(lambda part: dict(_ask(store, part)), slices):
            by_path |= answers
    return by_path


def _list(store: Store, paths: Sequence[str]) -> tuple[Mapping[str, str], Sequence[str]]:
    """List a folder up to a limit of entries; return the versions by path, and the paths after the last entry."""
    names, listed = set(paths), {}
    most = ENTRIES_A_FILE * len(paths)
    for number, entry in enumerate(store.list(os.path.commonprefix(paths)), 1):  # noqa: RUF071 - of characters
        if entry.path in names:
            listed[entry.path] = version_of(entry)
        # Stores list by UTF-8 bytes, the same order as that of Python's strings, so no other path follows.
        if entry.path >= paths[-1]:
            break
        if number >= most:
            return listed, [path for path in paths if path > entry.path]
    return listed, []


def _ask(store: Store, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        try:
            entry = store.stat(path)
        except RefusedError:
            continue
        if entry is not None:
            yield path, version_of(entry)


HEAD_BYTES = 64 * 1024
"""Bytes read when a recording is opened: a short one whole, the header of a longer one."""


_ROW = re.compile(r"(.+)#row=([0-9]{1,18})(?:&column=(.+))?", re.DOTALL)


class RowPath(NamedTuple):
    """A recording by the row of a shard that holds it: `talks-000.parquet#row=17`."""

    shard: str
    """Path of the shard."""
    row: int
    column: str = "audio"
    """Column of the recordings, in the path as `&column=NAME` if it has another name."""

    def __str__(self) -> str:
        column = f"&column={quote(self.column, safe='')}" if self.column != "audio" else ""
        return f"{self.shard}#row={self.row}{column}"

    @classmethod
    def parse(cls, path: str) -> "RowPath | None":
        """Return the row that a path names; None for a path of a file."""
        match = _ROW.fullmatch(path)
        return match and cls(match[1], int(match[2]), unquote(match[3] or "audio"))


class ReadsRows(Protocol):
    """Reader of recordings inside of shards (`raysp.corpus.stored_rows`)."""

    def __call__(self, url: str, entry: Entry, row: int, column: str) -> memoryview:
        """Return the recording of a row."""
        ...


class OpenRecording:
    """An open recording: path, version and bytes as of the time it was opened."""

    def __init__(self, path: str, opened: Opened, version: str = "") -> None:
        self.path = path
        """Relative to the root."""
        self.version = version or version_of(opened.entry)
        """Version of the file; of a recording inside of a shard, of the shard."""
        self.num_bytes = opened.entry.num_bytes
        self.head = opened.head
        self.seek = opened.file.seek
        """Moves the position and returns it."""
        self.read = opened.file.read
        """Reads at most a number of bytes. Fewer are returned only at the end."""

    @property
    def is_whole(self) -> bool:
        """Whether `head` holds the whole recording."""
        return len(self.head) == self.num_bytes

    def whole(self, most_bytes: int) -> bytes:
        """Return all bytes; raises TooLargeError, before they are read, if there are more than `most_bytes`."""
        bounds.check(self.num_bytes, most_bytes, "bytes")
        return self.head if self.is_whole else self.read(self.num_bytes)


class AudioRoot:
    """A folder of recordings and of files next to them. Paths that lead out of it are refused.

    Args:
        url: url of the folder.
        storage_options: options of its storage.
        by_form: whether a name is also looked for in other Unicode normal forms.
        links_into: local folder that links may lead into as well.
        below: folder in it, relative to it, to which paths are relative that are not found in the folder itself.
        rows: reader of recordings that are named by the row of a shard (`RowPath`); None: there are none.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, object] | None = None,
        *,
        by_form: bool = True,
        links_into: str | None = None,
        below: str = "",
        rows: ReadsRows | None = None,
    ) -> None:
        self.by_form = by_form
        self.below = below
        self._rows = rows
        self._shards: dict[str, tuple[str, Entry] | None] = {}
        """Urls and entries of opened shards by their paths; None if missing."""
        self.store = open_store(url, storage_options)
        self.url = self.store.url.rstrip("/")
        self.real = os.path.realpath(self.url) if isinstance(self.store, LocalStore) else ""
        self._allowed = {self.url: self.real}
        if links_into is not None and self.real and not scheme_of(links_into):
            self._allowed[normalise(links_into)] = os.path.realpath(normalise(links_into))

    def open(self, path: str, head_bytes: int = HEAD_BYTES) -> OpenRecording:
        """Open a file, with one request where the storage supports it.

        A name that is there in another Unicode normal form only is opened by that name, if there is one such file.
        On object storage `./a.wav`, as tools list files, is `a.wav` unless there is such a key.

        Args:
            path: relative to the root, or absolute inside it.
            head_bytes: bytes to read immediately.

        Raises:
            AudioError: `path_not_allowed` or `not_found`.
            RefusedError: permission is missing.
            StoreError: the storage fails.
        """
        if self.url.startswith(("http://", "https://")):
            raise self._not_allowed(path, "a web server may redirect anywhere, including to private addresses")
        relative = self.inside(path)
        row = self._row_of(relative)
        relative = relative if row is None else row.shard
        for name in (relative, *self._other_places(relative)):
            if (recording := self._opened(path, name, row, head_bytes)) is not None:
                return recording
        # A file may be named like a row.
        if row is not None and (recording := self._opened(path, self.inside(path), None, head_bytes)) is not None:
            return recording
        other_names = existing(relative, self._exists) if self.by_form else []
        other = other_names[0] if len(other_names) == 1 else None
        if other is not None and (recording := self._opened(path, other, row, head_bytes)) is not None:
            return recording
        raise self._not_found(path, relative, other_names)

    def _row_of(self, path: str) -> RowPath | None:
        return RowPath.parse(path) if self._rows else None

    def read(self, path: str, most_bytes: int) -> bytes:
        """Return a whole file.

        Raises:
            AudioError, RefusedError, StoreError: as `open`.
            TooLargeError: it has more than `most_bytes`; it is not read then.
        """
        return self.open(path).whole(most_bytes)

    def _opened(self, path: str, relative: str, row: RowPath | None, head_bytes: int) -> OpenRecording | None:
        """Open a file, or the recording of a row of it; None without the file."""
        if row is not None:
            return self._open_row(path, row._replace(shard=relative), head_bytes)
        if self.real:
            place = self._real_place(path, relative)
            opened = None if place is None else LocalStore(place[0]).open_version(place[1], head_bytes)
        else:
            opened = self.store.open_version(relative, head_bytes)
        return None if opened is None else OpenRecording(relative, opened)

    def _open_row(self, path: str, row: RowPath, head_bytes: int) -> OpenRecording | None:
        assert self._rows is not None
        if row.shard not in self._shards:
            self._shards[row.shard] = self._shard(path, row.shard)
        if (shard := self._shards[row.shard]) is None:
            return None
        url, entry = shard
        data = self._rows(url, entry, row.row, row.column)
        of_row = Entry(str(row), len(data), entry.version)
        opened = Opened(of_row, bytes(data[:head_bytes]), pa.BufferReader(pa.py_buffer(data)))
        return OpenRecording(str(row), opened, version_of(entry))

    def _shard(self, path: str, relative: str) -> tuple[str, Entry] | None:
        """Return the url of a shard, without links, and its entry, with the name that has its suffix."""
        if not self.real:
            entry = self.store.stat(relative)
            return None if entry is None else (join_url(self.url, relative), entry)
        if (place := self._real_place(path, relative)) is None:
            return None
        folder, name = place
        entry = LocalStore(folder).stat(name)
        return None if entry is None else (join_url(folder, name), replace(entry, path=relative))

    def _other_places(self, relative: str) -> list[str]:
        """Return further names that a path may stand for: without parts `.` on object storage, and in `below`."""
        plain = self._without_dots(relative)
        return [place for place in (plain, self.below and join_url(self.below, plain or relative)) if place]

    def _without_dots(self, relative: str) -> str:
        """Return the key that a path with parts `.` names on object storage; empty for others. Local ones follow it."""
        parts = [part for part in relative.split("/") if part != "."]
        return "" if self.real or "." not in relative.split("/") or not all(parts) else "/".join(parts)

    def _exists(self, relative: str) -> bool:
        with suppress(StoreError, ValueError):
            return self.store.stat(relative) is not None
        return False

    def versions(self, paths: Collection[str]) -> dict[str, str]:
        """Return the current versions of recordings by path; a row of a shard has the version of the shard.

        Missing and refused recordings are omitted.

        Args:
            paths: relative to the root.

        Raises:
            StoreError: the storage fails.
        """
        files = {path: row.shard if (row := self._row_of(path)) else path for path in paths}
        by_path = self._versions_at_places({*files.values()})
        if named_like_rows := {path for path, file in files.items() if file not in {*by_path, path}}:
            by_path |= self._versions_at_places(named_like_rows)
        return {path: by_path[name] for path, file in files.items() for name in (path, file) if name in by_path}

    def _versions_at_places(self, paths: Collection[str]) -> dict[str, str]:
        """Return versions of files by path, each at the place from which `open` reads it."""
        by_path = versions(self.store, paths)
        if not (missing := {path: self._other_places(path) for path in paths if path not in by_path}):
            return by_path
        elsewhere = versions(self.store, {place for places in missing.values() for place in places})
        for path, places in missing.items():
            names = [place for place in places if place in elsewhere]
            if names:
                by_path[path] = elsewhere[names[0]]
            elif self.by_form and not path.isascii():
                names = existing(path, self._exists)
                if len(names) == 1 and (there := versions(self.store, names)):
                    by_path[path] = there[names[0]]
        return by_path

    def has(self, relative: str) -> bool:
        """Return whether there is a file of this name, or a link that leads nowhere."""
        return self._exists(relative) or (bool(self.real) and os.path.islink(self._place(relative)))  # noqa: PTH114

    def _place(self, relative: str) -> str:
        return os.path.join(self.real, relative)  # noqa: PTH118

    def is_refused(self) -> bool:
        """Return whether even listing the folder is refused."""
        try:
            next(self.store.list(), None)
        except RefusedError:
            return True
        return False

    def inside(self, path: str) -> str:
        """Return the path relative to the root, by its text alone, without access to the storage.

        Raises:
            AudioError: `path_not_allowed`.
        """
        inside = path.removeprefix(f"{self.url}/")
        if SCHEME.match(inside):
            raise self._not_allowed(path, "it has another url scheme")
        if "\0" in inside or ".." in PurePosixPath(inside).parts:
            raise self._not_allowed(path, "it contains '..' or NUL")
        if inside.startswith("/"):
            folder = os.path.dirname(inside)  # noqa: PTH120
            advice = f". If it may be read, set source.audio_root to a folder that holds it, such as {folder!r:.200}"
            raise self._not_allowed(path, "it is absolute and outside the folder", advice)
        return inside

    def _real_place(self, path: str, relative: str) -> tuple[str, str] | None:
        """Return the allowed folder of a file and its resolved path in it, so that no link is followed later."""
        try:
            real = os.path.realpath(self._place(relative), strict=True)
            kind = os.stat(real).st_mode  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:  # a parent folder is not accessible
            raise explain(error, "read", self._place(relative)) from error
        except (OSError, ValueError) as error:  # a loop of links, a name too long
            raise self._not_allowed(path, f"it cannot be followed ({error})") from None
        allowed = next((folder for folder in self._allowed.values() if real.startswith(f"{folder.rstrip('/')}/")), None)
        if allowed is None:
            raise self._leads_out(path, real)
        if not stat.S_ISREG(kind):
            raise self._not_allowed(path, "it is not a file")
        return allowed, os.path.relpath(real, allowed)

    def _leads_out(self, path: str, real: str) -> AudioError:
        return self._not_allowed(
            path,
            f"a link leads out of the folder, to {real!r:.200}",
            ". If links may lead there, set source.audio_root to a folder that holds all their targets, such as "
            f"{self._holding(real)!r:.200}",
        )

    def _holding(self, real: str) -> str:
        """Return a folder that holds this one and the target of a link, else the folder of the target."""
        shared = os.path.commonpath((self.real, real))
        return shared if shared.count("/") >= LEAST_PARTS else os.path.dirname(real)  # noqa: PTH120

    def _not_allowed(self, path: str, why: str, advice: str = "") -> AudioError:
        expected = f"expected a file in {' or '.join(self._allowed)}"
        return AudioError("path_not_allowed", f"path {path!r:.200}: {why}; {expected}{advice}")

    def _not_found(self, path: str, relative: str, other_names: Sequence[str] = ()) -> AudioError:
        more = ""
        if other_names:
            names = ", ".join(map(ascii, other_names))
            forms = f"{len(other_names)} files have its name in other Unicode forms, {names}"
            more = f"; {forms}: write the path as one of them"
        elif path.startswith(("[", "{")):
            more = "; it looks like a JSON list or object: write one path, and a row for each recording"
        elif self.real and os.path.islink(place := self._place(relative)):  # noqa: PTH114
            more = f"; it is a link to {os.path.realpath(place)!r:.200}, where nothing is: fetch the file"
        shown = ascii(path) if other_names else repr(path)
        return AudioError("not_found", f"path {shown:.200}: no such file in {self.url}{more}")


def recordings_of(folder: str, storage_options: Mapping[str, object] | None, links_into: str | None) -> AudioRoot:
    """Open a folder whose listing has the names of its recordings and of the files next to them; see `AudioRoot`."""
    # Names are those of the listing, with which metadata was matched.
    return AudioRoot(folder, storage_options, by_form=False, links_into=links_into)
