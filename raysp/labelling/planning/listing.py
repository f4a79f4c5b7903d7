"""Shards of a corpus: the files that its urls list, and the names of their label shards relative to its root.

The root is the same in every run. With another one the same shards would get other names, and readers of the sink would
see their rows twice.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product, takewhile
from pathlib import Path, PurePosixPath

from raysp.corpus import sources
from raysp.corpus.kinds import Beside, Cut, Metadata, Origin, SourceKind
from raysp.corpus.recording_names import is_audio, suffix_of
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError, PlanError, ShardError, StoreError
from raysp.labelling.planning.label_shards import Found, with_label_shards
from raysp.labelling.planning.table_formats import refuse_revisions, refuse_tables
from raysp.sink.run_record import RunRecord
from raysp.specs.pipeline import Pipeline, Shards
from raysp.specs.values import JsonValue
from raysp.storage.globs import has_wildcard, is_listed, literal_prefix, split_glob
from raysp.storage.store import Entry, Listing, NothingListedError, check_names, join_url, normalise, scheme_of
from raysp.storage.stores import expand

SUFFIXES_SHOWN = 8
FAULTS_SHOWN = 3
_PINNED = re.compile(r"hf://datasets/([^/@]+/[^/@]+)@([0-9a-f]{40})/.*")


@dataclass(frozen=True)
class Listed:
    """A listed corpus."""

    root: str
    """Folder that the label shards are named relative to."""
    found: tuple[Found, ...]
    """Sorted by name."""
    passed_over: Mapping[str, int]
    """Number of files that are neither shards nor recordings, by suffix; the most frequent first."""
    unnamed: int = 0
    """Recordings without a row in the metadata, in folders with metadata files."""
    missing: int = 0
    """Recordings of the metadata that do not exist."""
    unread: int = 0
    """Texts beside recordings that cannot be read."""
    faults: tuple[str, ...] = ()
    """Why the first of them cannot be read."""
    gone: tuple[str, ...] = ()
    """Ids of recordings that the sink's plan lists and the source no longer has."""


@dataclass(frozen=True)
class _Sorted:
    """Files of one url, sorted by kind."""

    listing: Listing
    """Shards or recordings."""
    is_audio: bool = False
    others: tuple[Entry, ...] = ()
    """Other files, which are passed over."""
    metadata: Metadata | None = None
    """Metadata of the recordings."""


def list_corpus(source: Shards, recorded: Mapping[str, Shard] | None = None, *, recut: bool = False) -> Listed:
    """Return a corpus's shards with the names of their label shards relative to its root.

    Args:
        source: the corpus.
        recorded: shards of earlier plans by name. Their slices of manifests and folders never change.
        recut: slice a manifest again if it changed so that its recorded slices no longer end with a line.

    A manifest that is damaged, such as a truncated `.gz`, is one unreadable shard, unless there is no other file or
    slices of it are recorded.

    Raises:
        PlanError: there is no shard, two label shards have the same name, readers would pass over a name, or a shard is
            not labelled in `source.labels`.
    """
    try:
        listings = [_list_url(url, source) for url in source.urls]
    except StoreError as error:
        raise PlanError(f"source.url: {error}") from error
    root = _normal(source.root) if source.root else _common_root([one.listing for one in listings])
    found: list[Found] = []
    unnamed = missing = 0
    gone: list[str] = []
    unread, faults = 0, list[str]()
    for kind, origin in [*_folders(listings), *_files(listings)]:
        reading = kind.within(source.audio_root)
        for one, cut in _cut(reading, origin, root, recorded or {}, source.storage_options, recut=recut):
            found.append(one)
            unnamed, missing = unnamed + cut.unnamed, missing + cut.missing
            stem = one.name.removesuffix(".parquet")
            gone += [path if source.id else f"{stem}:{row}" for row, path in cut.gone]
            unread, faults = unread + len(cut.faults), [*faults, *cut.faults][:FAULTS_SHOWN]
    if found and all(one.unreadable for one in found):
        raise PlanError(f"source: {found[0].url}: {found[0].unreadable}")
    for name, times in Counter(one.name for one in found).items():
        if times > 1:
            urls = [one.url for one in found if one.name == name]
            raise PlanError(f"source: {' and '.join(urls)} would both become {name}; set source.root or rename one")
    passed_over = Counter(suffix_of(entry.path) for one in listings for entry in one.others)
    by_name = with_label_shards(sorted(found, key=lambda one: one.name), source)
    return Listed(root, by_name, dict(passed_over.most_common()), unnamed, missing, unread, tuple(faults), tuple(gone))


def _folders(listings: Sequence[_Sorted]) -> Iterator[tuple[SourceKind, Origin]]:
    """Yield the folders of recordings with their audio files, each once, even if several urls list it."""
    files: dict[str, dict[str, Entry]] = {}
    given = {one.listing.root: one.metadata for one in listings if one.metadata is not None}
    for one in listings:
        if one.is_audio:
            files.setdefault(one.listing.root, {}).update((entry.path, entry) for entry in one.listing.entries)
    for folder, found in files.items():
        entries = tuple(sorted(found.values(), key=lambda entry: entry.path))
        yield sources.kind_named(sources.FOLDER), Origin(folder, entries, given.get(folder))


def _files(listings: Sequence[_Sorted]) -> Iterator[tuple[SourceKind, Origin]]:
    """Yield the files that hold rows, each once."""
    files = {one.listing.url(entry): entry for one in listings if not one.is_audio for entry in one.listing.entries}
    for url, entry in sorted(files.items()):
        yield sources.kind_of_file(url), Origin(url, (entry,))


def _common_root(listings: Sequence[Listing]) -> str:
    """Return the folder that holds the roots of all listings."""
    roots = [listing.root.split("/") for listing in listings]
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*roots, strict=False))
    shared = [parts[0] for parts in alike]
    is_bucket = len(shared) > 2 or not scheme_of(listings[0].root)
    if not shared or not is_bucket:
        places = " and ".join(dict.fromkeys(listing.root for listing in listings))
        raise PlanError(f"source.url: {places} have no folder in common; use a sink for each")
    return "/".join(shared) or "/"


def _list_url(url: str, source: Shards) -> _Sorted:
    """Return the files of a url: its shards if it has any, otherwise its audio files."""
    storage_options = source.storage_options
    try:
        listing = expand(url, storage_options, "**/*")
    except NothingListedError as error:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", url) and "no such file" in str(error):
            raise PlanError(
                f"source.url: {error}. If {url!r} is a data set of the Hugging Face hub, give its split, such as "
                "source.split='train'"
            ) from None
        raise
    is_folder = listing.root == _normal(url)
    is_shard = partial(sources.is_shard, url=url, in_folder=is_folder)
    shards: Sequence[Entry] = [one for one in listing.entries if is_shard(one.path) and not _is_hidden(one.path, url)]
    recordings = [entry for entry in listing.entries if is_audio(entry.path)]
    given: Metadata | None = None
    beside: Sequence[str] = ()
    if is_folder:
        shards = sources.chosen(listing.root, shards, storage_options)
        if recordings:
            folder = Beside(listing.root, recordings, shards, listing.entries, source.text)
            given, beside = _described(folder, source)
        if given is not None:
            shards, given = [], given.as_listed(one.path for one in listing.entries)
            recordings = [one for one in listing.entries if is_audio(one.path) or one.path in given.checks]
    kept = shards or recordings
    taken = {entry.path for entry in kept} | {*beside}
    others = tuple(one for one in listing.entries if one.path not in taken and not _describes_shards(one, shards))
    if not kept:
        raise PlanError(_nothing_to_label(url, others, is_folder=is_folder))
    chosen = Listing(listing.root, tuple(kept))
    check_names(chosen)
    _refuse_old_files(url, listing, [one.path for one in kept], storage_options, are_shards=bool(shards))
    return _Sorted(chosen, not shards, others, given)


def _refuse_old_files(
    url: str, listing: Listing, kept: Sequence[str], storage_options: Mapping[str, object], *, are_shards: bool
) -> None:
    """Raise if some files are of earlier versions of a table or repository."""
    place = _normal(url)
    if place == join_url(listing.root, kept[0]):  # a file, which a user may have taken from the log of a table
        return
    pattern = place.removeprefix(join_url(listing.root, "")) if place != listing.root else ""
    saw_root = not scheme_of(url) or not literal_prefix(pattern)
    seen = [*listing.markers, *(one.path for one in listing.entries)]
    try:
        if are_shards:
            refuse_tables(listing.root, kept, seen, storage_options, saw_root=saw_root)
        refuse_revisions(listing.root, kept, storage_options)
    except ShardError as error:
        raise PlanError(f"source.url: {error}") from None


def _is_hidden(path: str, url: str) -> bool:
    """Return whether readers would ignore a file that no url names, such as `_old.parquet` of a folder."""
    return path.rpartition("/")[2].startswith("_") and not url.rpartition("/")[2].startswith("_")


def _described(folder: Beside, source: Shards) -> tuple[Metadata | None, Sequence[str]]:
    try:
        return sources.kind_named(sources.FOLDER).within(source.audio_root).described_by(folder, source.storage_options)
    except ShardError as error:
        raise PlanError(f"source: {error}") from error


def _describes_shards(entry: Entry, shards: Sequence[Entry]) -> bool:
    """Return whether a file describes shards, and need not be reported."""
    return bool(shards) and sources.describes_shards(entry.path.rpartition("/")[2])


def _nothing_to_label(url: str, others: Sequence[Entry], *, is_folder: bool) -> str:
    passed_over = Counter(suffix_of(entry.path) for entry in others)
    inside = " in it" if is_folder else ""
    has_manifest = is_folder and passed_over.keys() & {".jsonl", ".ndjson", ".gz"}
    manifest = ". Give a manifest by its own path" if has_manifest else ""
    return (
        f"source.url: {url!r}: found no shard and no recording{inside}, only {count_files(passed_over)}; expected "
        f"{sources.read_as()}{manifest}. To label recordings listed in a table, write a manifest with a line for each: "
        '{"audio_filepath": PATH}'
    )


def count_files(by_suffix: Mapping[str, int], done: str = "") -> str:
    """Return a text such as "3 other files: 2 .txt, 1 .json"; `done` is inserted before the colon."""
    total, kinds = sum(by_suffix.values()), list(by_suffix.items())
    shown = [f"{number:,} {suffix or 'without suffix'}" for suffix, number in kinds[:SUFFIXES_SHOWN]]
    if rest := sum(number for _, number in kinds[SUFFIXES_SHOWN:]):
        shown.append(f"{rest:,} more")
    return f"{total:,} other {'file' if total == 1 else 'files'}{done}: {', '.join(shown)}"


def _cut(
    kind: SourceKind,
    origin: Origin,
    root: str,
    recorded: Mapping[str, Shard],
    storage_options: Mapping[str, object],
    *,
    recut: bool,
) -> Iterator[tuple[Found, Cut]]:
    """Cut a file or folder into shards, and name their label shards."""
    stem = _folder_stem(origin.url, root) if kind.is_folder else kind.stem(_relative(origin.url, root))
    known = _recorded_slices(stem, kind, recorded) if kind.is_sliced else []
    try:
        cuts = kind.cut(origin, known, storage_options, recut=recut)
    except (ShardError, StoreError, OSError, EOFError) as error:
        if known or kind.is_folder or not isinstance(error, ShardError):
            raise PlanError(f"source: {origin.url}: {error}") from error
        [entry] = origin.entries
        one = Cut(entry.num_bytes, entry.version)
        name = f"{stem}-{0:05}.parquet" if kind.is_sliced else f"{stem}.parquet"
        yield Found(name, origin.url, one.num_bytes, one.version, kind.name, unreadable=str(error)), one
        return
    for number, one in enumerate(cuts):
        name = f"{stem}-{number:05}.parquet" if kind.is_sliced else f"{stem}.parquet"
        yield Found(name, origin.url, one.num_bytes, one.version, kind.name, one.part), one


def _recorded_slices(stem: str, kind: SourceKind, recorded: Mapping[str, Shard]) -> list[Shard]:
    """Return the recorded shards that are slices of one origin, in order.

    Slices that could not be read (`sink.absent`) keep their place before others; behind them, they are cut again.
    """
    name = re.compile(re.escape(stem) + r"-\d{5,}\.parquet")
    slices = [recorded[one] for one in sorted(recorded) if recorded[one].kind == kind.name and name.fullmatch(one)]
    while slices and not slices[-1].input_id:
        slices.pop()
    return slices


def _folder_stem(url: str, root: str) -> str:
    """Return the beginning of the names of a folder's label shards: in the folder's place, and named after it."""
    name = PurePosixPath(url).name or "audio"
    return name if url == root else f"{_relative(url, root)}/{name}"


def _relative(url: str, root: str) -> str:
    """Return the path of a file or folder relative to the root."""
    if not url.startswith(beginning := join_url(root, "")):
        raise PlanError(f"source.root: {url} is not below {root}; give a folder that holds all shards")
    relative = PurePosixPath(url.removeprefix(beginning))
    for part in relative.parts:
        if part.startswith(("_", ".")):
            raise PlanError(f"source: {url}: readers ignore names that begin with {part[0]!r}; rename {part!r}")
    return relative.as_posix()


def refuse_listed_sink(source: Shards, found: Sequence[Found], sink_url: str) -> None:
    """Raise if a label shard would be listed as a shard or would overwrite one, or if the sink contains a shard.

    Raises:
        PlanError: sink and source overlap; the message has the url and the label shard.
    """
    sinks = {sink for place in [_normal(sink_url)] for sink in (place, _real(place))}
    shards = {place for one in found for place in (one.url, _real(one.url))}
    of_recordings = {one.url for one in found if sources.kind_named(one.kind).is_folder}
    files = shards.difference(of_recordings, map(_real, of_recordings))
    patterns = [(url, root, pattern) for url in source.urls for root, pattern in _patterns(url, files)]
    for one in found:
        for label_shard in (join_url(sink, one.name) for sink in sinks):
            listing = next((url for url, root, pattern in patterns if _lists(root, pattern, label_shard)), None)
            if listing is not None or label_shard in shards:
                raise PlanError(
                    f"sink.url: the label shard {label_shard} would be one of the shards of source.url="
                    f"{listing or one.url!r}; choose a folder outside the source"
                )
    for sink, shard in product(sinks, shards):
        if shard.startswith(join_url(sink, "")):
            raise PlanError(
                f"sink.url: {sink} is a folder above the source {shard}, which readers of the sink would take for "
                "labels; choose a folder outside the source"
            )


def _normal(url: str) -> str:
    try:
        return normalise(url)
    except StoreError as error:
        raise PlanError(str(error)) from error


def _real(place: str) -> str:
    """Return a local path with its links resolved; urls are unchanged."""
    return place if scheme_of(place) else os.path.realpath(place)


def _patterns(url: str, files: Collection[str]) -> list[tuple[str, str]]:
    """Return root and pattern of a folder or glob, with the root as written and with its links resolved.

    There are none of a url that is one of the shards' `files`.
    """
    place = _normal(url)
    if place in files:
        return []
    is_folder = not has_wildcard(place) or (not scheme_of(place) and Path(place).is_dir())
    root, pattern = (place, "**/*.parquet") if is_folder else split_glob(place)
    return [(root or "/", pattern), (_real(root or "/"), pattern)]


def _lists(root: str, pattern: str, url: str) -> bool:
    """Return whether `expand` would list a file at `url`."""
    beginning = join_url(root, "")
    return url.startswith(beginning) and is_listed(url.removeprefix(beginning), pattern)


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
    if not recorded or root_before in (None, root) or are_listed(found, recorded):
        return
    raise ChangedError(
        f"{sink}: its label shards are named relative to {root_before!r}, this source's to {root!r}; shards "
        f"under a second name would be labelled twice. Set source.root={root_before!r}, undo the change of source.url, "
        "or use another sink",
        (f"source.root: {root_before!r} -> {root!r}",),
    )


def are_listed(found: Sequence[Found], recorded: Mapping[str, Shard]) -> bool:
    """Return whether each recorded shard is listed with its name and content, and never with another name."""
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


def of_commit(pipeline: Pipeline, record: RunRecord | None) -> Pipeline:
    """Return the pipeline with a data set of the hub replaced by the urls of its files at a commit.

    The commit is the recorded one, so that all runs of a sink read the same files; without a record, or if the source
    names a revision, it is the current one of that revision. Other sources are returned unchanged.

    Raises:
        PlanError: as `source_of_commit`.
    """
    if pipeline.source.split is None:
        return pipeline
    recorded = record.pipeline.get("source") if record and isinstance(record.pipeline, dict) else None
    return replace(pipeline, source=source_of_commit(pipeline.source, recorded))


def source_of_commit(source: Shards, recorded: JsonValue = None) -> Shards:
    """Return a source with a data set of the hub replaced by the urls of its files at a commit; see `of_commit`.

    Args:
        source: the source.
        recorded: the source recorded by an earlier run, as JSON; None: there is none.

    Raises:
        PlanError: the hub cannot be reached or has no such data set, or the split holds no Parquet files.
    """
    if source.split is None:
        return source
    from raysp.labelling.planning.hub_data import find_split

    name, _, revision = source.urls[0].partition("@")
    commit = revision or _recorded_commit(recorded, name)
    found = find_split(name, source.split, source.config, revision=commit, storage_options=source.storage_options)
    return replace(source, url=found.urls, root=source.root or found.root, split=None, config=None)


def _recorded_commit(source: JsonValue, name: str) -> str | None:
    urls = source.get("url") if isinstance(source, dict) else None
    matches = [_PINNED.fullmatch(str(url)) for url in (urls if isinstance(urls, list) else [urls])]
    return next((match[2] for match in matches if match and match[1] == name), None)
