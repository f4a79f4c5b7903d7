"""Texts beside recordings, as column `text`: `a.wav` with `a.txt`, `a.lab`, `a.json` or `a.TextGrid` in its folder.

A plan records the versions of these files from the listing and reads none of them.
"""

import posixpath
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from raysp import bounds
from raysp.bounds import shortened
from raysp.corpus.kinds import Metadata, Options
from raysp.corpus.shards import one_line
from raysp.errors import ShardError
from raysp.storage.store import Entry, Store, join_url
from raysp.storage.stores import open_store
from raysp.words import RESTORE

SUFFIXES = (".txt", ".lab", ".json", ".textgrid")
"""Suffixes in lower case; of several files of one recording the first is read."""
SCHEMA = pa.schema([pa.field("text", pa.string())])
PATTERN = "*"
"""Begins the names of `Metadata.files`, which are suffixes as they are written."""
THREADS = 16
"""Files that are read at once: on object storage each takes two requests."""
TIERS = ("text", "words", "word", "transcript", "transcription", "utterance", "utterances", "sentence", "sentences")
"""Tiers of a TextGrid that hold its text, by their names in lower case."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16."""
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|<exists>|<absent>)(?!\S)|![^\n]*')
"""Tokens of a text file of Praat: quoted texts, and numbers and flags that stand alone. A `!` begins a comment."""


def find(recordings: Sequence[Entry], entries: Sequence[Entry]) -> tuple[Metadata | None, list[str]]:
    """Return the texts beside recordings with the paths of their files; None if there are none.

    Args:
        recordings: the recordings of a folder.
        entries: all its files.
    """
    beside: dict[str, list[Entry]] = {}
    for entry in entries:
        stem, suffix = posixpath.splitext(entry.path)
        if suffix.lower() in SUFFIXES and entry.version:  # a link that leads nowhere has none
            beside.setdefault(stem, []).append(entry)
    found = {one.path: min(beside[stem], key=_rank) for one in recordings if (stem := _stem(one.path)) in beside}
    if not found:
        return None, []
    suffixes = sorted({posixpath.splitext(one.path)[1] for one in found.values()}, key=lambda one: (_place(one), one))
    checks = {path: _check(one) for path, one in found.items()}
    return Metadata(tuple(f"{PATTERN}{suffix}" for suffix in suffixes), SCHEMA, checks), [
        one.path for one in found.values()
    ]


def are_sidecars(files: Sequence[str]) -> bool:
    """Return whether the files of `Metadata` are suffixes of texts beside recordings."""
    return any(name.startswith(PATTERN) for name in files)


def read_columns(
    root: str, files: Sequence[str], recordings: Sequence[tuple[str, int | None]], options: Options
) -> pa.Table:
    """Return the texts of some recordings, null where there was none when they were planned.

    Args:
        root: folder of the corpus.
        files: `Metadata.files`.
        recordings: path of each, and the planned check of its text, None if it had none.
        options: options of the folder's storage.

    Raises:
        ShardError: a text changed since it was planned, or cannot be read.
        StoreError: the storage fails.
    """
    store = open_store(root, options)
    suffixes = [name.removeprefix(PATTERN) for name in files]

    def text(recording: tuple[str, int | None]) -> str | None:
        path, check = recording
        return None if check is None else _read(store, _planned(store, path, suffixes, check).path)

    with ThreadPoolExecutor(THREADS) as pool:
        return pa.table({"text": pa.array(pool.map(text, recordings), pa.string())})


def _planned(store: Store, path: str, suffixes: Sequence[str], check: int) -> Entry:
    """Return the file of a recording's text, if it is that of the plan."""
    for suffix in suffixes:
        if (entry := store.stat(f"{_stem(path)}{suffix}")) is not None and _check(entry) == check:
            return entry
    raise ShardError(f"{join_url(store.url, path)}: the text beside it changed since it was planned. {RESTORE}")


def _read(store: Store, path: str) -> str | None:
    url = join_url(store.url, path)
    raw = store.read(path)
    try:
        bounds.check(len(raw), bounds.MOST_JSON_BYTES, "bytes")
        suffix = posixpath.splitext(path)[1].lower()
        return _of_json(raw) if suffix == ".json" else _of_textgrid(raw) if suffix == ".textgrid" else plain_text(raw)
    except (ValueError, bounds.TooLargeError) as error:
        raise ShardError(f"{url}: {one_line(error)}. Correct it, or rename it so that it is ignored") from None


def plain_text(raw: bytes) -> str:
    """Return the text of a file in UTF-8, with invalid bytes escaped, or in UTF-16 with a byte order mark."""
    encoding, errors = ("utf-16", "replace") if raw[:2] in _UTF16 else ("utf-8-sig", "backslashreplace")
    return raw.decode(encoding, errors).strip("\r\n")


def _of_json(raw: bytes) -> str | None:
    value = bounds.parse_json(raw)
    if not isinstance(value, Mapping) or not isinstance(value.get("text", 0), str | None):
        raise ValueError(f"found {shortened(value)}, expected a JSON object with a text under 'text'")
    return None if value["text"] is None else str(value["text"]).encode("utf-8", "backslashreplace").decode()


def _of_textgrid(raw: bytes) -> str:
    """Return the labels of a tier of intervals, joined by spaces."""
    tiers = dict(_tiers(_tokens(plain_text(raw))))
    named = [name for name in tiers if name.lower() in TIERS] or [*tiers]
    if len(named) != 1:
        found = ", ".join(map(shortened, tiers)) or "none"
        raise ValueError(f"its tiers of intervals are {found}, expected one, or one that is named {' or '.join(TIERS)}")
    return " ".join(" ".join(label.split()) for label in tiers[named[0]] if label.strip())


def _tokens(text: str) -> Iterator[str | float]:
    for found in _TOKEN.finditer(text):
        quoted, bare = found.groups()
        if quoted is not None:
            yield quoted.replace('""', '"')
        elif bare is not None and not bare.startswith("<"):
            yield float(bare)


def _tiers(tokens: Iterator[str | float]) -> Iterator[tuple[str, list[str]]]:
    """Yield the tiers of intervals with their labels.

    Raises:
        ValueError: it is not a TextGrid in one of Praat's two text formats, or ends early.
    """
    try:
        if (next(tokens), next(tokens)) != ("ooTextFile", "TextGrid"):
            raise ValueError("it is not a TextGrid in a text format of Praat")
        _, _, num_tiers = (next(tokens) for _ in range(3))
        for _ in range(int(num_tiers)):
            kind, name, _, _, size = (next(tokens) for _ in range(5))
            width = 3 if kind == "IntervalTier" else 2
            items = [[next(tokens) for _ in range(width)] for _ in range(int(size))]
            if kind == "IntervalTier":
                yield str(name), [str(label) for *_, label in items]
    except (StopIteration, RuntimeError):
        raise ValueError("it ends early, or is no TextGrid") from None


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _rank(entry: Entry) -> tuple[int, str]:
    return _place(posixpath.splitext(entry.path)[1]), entry.path


def _place(suffix: str) -> int:
    return SUFFIXES.index(suffix.lower())


def _check(entry: Entry) -> int:
    return zlib.crc32(repr((entry.path, entry.num_bytes, entry.version)).encode())
