"""Texts beside recordings, as column `text`: `a.wav` with `a.txt` or `a.lab` in its folder.

A plan reads each new text once. One that cannot be read is recorded as `BAD`: its row becomes an error, in this run and
in later ones, until it is corrected and the row labelled again.
"""

import posixpath
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from raysp import bounds
from raysp.corpus.shards import FAULT, Metadata
from raysp.errors import AudioError, ShardError
from raysp.storage.audio_root import AudioRoot
from raysp.storage.store import Entry, RefusedError, join_url
from raysp.text.error_rates import plain_text
from raysp.words import RESTORE

SUFFIXES = (".txt", ".lab")
"""Suffixes in lower case; of several files of one recording the first is read."""
SCHEMA = pa.schema([pa.field("text", pa.string())])
PATTERN = "*"
"""Begins the names of `Metadata.files`, which are suffixes as they are written."""
BAD = -1
"""Check of a text that could not be read when it was planned."""
THREADS = 16
"""Files that are read at once: on object storage each takes two requests."""


def find(recordings: Sequence[Entry], entries: Sequence[Entry]) -> tuple[Metadata | None, list[str]]:
    """Return the texts beside recordings with the paths of their files; None if there are none.

    Args:
        recordings: the recordings of a folder.
        entries: all its files.
    """
    texts_by_stem: dict[str, list[Entry]] = {}
    for entry in entries:
        stem, suffix = posixpath.splitext(entry.path)
        if suffix.lower() in SUFFIXES:
            texts_by_stem.setdefault(stem, []).append(entry)
    matches = {
        recording.path: min(texts_by_stem[stem], key=_rank)
        for recording in recordings
        if (stem := _stem(recording.path)) in texts_by_stem
    }
    if not matches:
        return None, []
    suffixes = sorted(
        {posixpath.splitext(text.path)[1] for text in matches.values()},
        key=lambda suffix: (_place(suffix), suffix),
    )
    checks = {path: _check(text) for path, text in matches.items()}
    texts = {path: text.path for path, text in matches.items()}
    return Metadata(tuple(f"{PATTERN}{suffix}" for suffix in suffixes), SCHEMA, checks, texts), [*texts.values()]


def are_sidecars(files: Sequence[str]) -> bool:
    """Return whether the files of `Metadata` are suffixes of texts beside recordings."""
    return any(name.startswith(PATTERN) for name in files)


def faults_of(root: AudioRoot, paths: Sequence[str]) -> dict[str, str]:
    """Read texts, and return the reasons of those that cannot be read, by their paths.

    Raises:
        StoreError: the storage fails.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        faults = pool.map(lambda path: _read(root, path)[1], paths)
        return {path: fault for path, fault in zip(paths, faults, strict=True) if fault is not None}


def read_columns(root: AudioRoot, files: Sequence[str], recordings: Sequence[tuple[str, int | None]]) -> pa.Table:
    """Return the texts of some recordings, null where there was none when they were planned, and `FAULT`.

    Args:
        root: folder of the corpus.
        files: `Metadata.files`.
        recordings: path of each, and the planned check of its text, None if it had none.

    Raises:
        ShardError: a text changed since it was planned.
        StoreError: the storage fails.
    """
    suffixes = [name.removeprefix(PATTERN) for name in files]

    def text(recording: tuple[str, int | None]) -> tuple[str | None, str | None]:
        path, check = recording
        names = [f"{_stem(path)}{suffix}" for suffix in suffixes]
        return (None, None) if check is None else _read(root, _planned(root, names, check))

    with ThreadPoolExecutor(THREADS) as pool:
        contents = [*pool.map(text, recordings)]
    texts, faults = [value for value, _ in contents], [fault for _, fault in contents]
    return pa.table({"text": pa.array(texts, pa.string()), FAULT: pa.array(faults, pa.string())})


def _planned(root: AudioRoot, names: Sequence[str], check: int) -> str:
    """Return the name of a text that is the planned one, or any that is there if the planned one was bad."""
    if check == BAD:
        return next(filter(root.has, names), names[0])
    for name in names:
        if (entry := root.store.stat(name)) is not None and _check(entry) == check:
            return name
    raise ShardError(f"{join_url(root.url, names[0])}: this text changed since it was planned. {RESTORE}")


def _read(root: AudioRoot, path: str) -> tuple[str | None, str | None]:
    """Return a text, or why it cannot be read."""
    try:
        return plain_text(root.read(path, bounds.MOST_JSON_BYTES)), None
    except (AudioError, RefusedError) as error:
        return None, f"the text beside the recording: {error}"
    except ValueError as error:
        return None, f"the text beside the recording, {path!r:.200}, {error}"


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _rank(entry: Entry) -> tuple[int, str]:
    return _place(posixpath.splitext(entry.path)[1]), entry.path


def _place(suffix: str) -> int:
    return SUFFIXES.index(suffix.lower())


def _check(entry: Entry) -> int:
    return zlib.crc32(repr((entry.path, entry.num_bytes, entry.version)).encode())
