"""Shards of a corpus: the files that its urls list, and the names of their label shards relative to its root.

The root is the same in every run. With another one the same shards would get other names, and readers of the sink would
see their rows twice.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise, product, takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from raysp import words
from raysp.corpus import sources
from raysp.corpus.old_files import refuse_revisions, refuse_tables
from raysp.corpus.shards import Beside, Cut, Metadata, Origin, Shard, SourceKind, is_audio, suffix_of
from raysp.corpus.sources import options_beside
from raysp.errors import ChangedError, PlanError, RayspError, ShardError, StoreError, about
from raysp.sink import commit
from raysp.sink.run_record import RunRecord, field_of
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Pipeline, Shards
from raysp.specs.values import JsonValue
from raysp.storage.options import is_listed, literal_prefix, split_glob
from raysp.storage.store import Entry, Listing, NothingListedError, check_names, join_url, normalise, scheme_of
from raysp.storage.stores import expand

SUFFIXES_SHOWN = 8
FAULTS_SHOWN = 3
_PINNED = re.compile(r"hf://datasets/([^/@]+/[^/@]+)@([0-9a-f]{40})/.*")


@dataclass(frozen=True)
class Listed:
    """A listed corpus."""

    root: str | None = None
    """Folder that the label shards are named relative to; None: nothing was listed."""
    shards: tuple[Shard, ...] = ()
    """Shards without rows, pieces and input id, which their footers have; sorted by name."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Shards of `shards` whose file cannot be cut into shards, with the reason."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Number of files that are neither shards nor recordings, by suffix; the most frequent first."""
    unnamed: int = 0
    """Recordings without a row in the metadata, in folders with metadata files."""
    missing: int = 0
    """Recordings of the metadata that do not exist."""
    unread: int = 0
    """Text files of recordings that cannot be read."""
    faults: tuple[str, ...] = ()
    """Reasons for the first of them."""
    gone: tuple[str, ...] = ()
    """Ids of recordings that the sink's plan lists and the source no longer has; their labels are kept."""


class _Sorted(NamedTuple):
    """Files of one url, sorted by kind."""

    listing: Listing
    """Shards or recordings."""
    holds_audio: bool
    passed_over: tuple[Entry, ...]
    """Other files."""
    metadata: Metadata | None
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
    with about("source.url", PlanError, StoreError):
        listings = [_list_url(url, source) for url in source.urls]
    with about("source.root", PlanError, StoreError):
        root = normalise(source.root) if source.root else _common_root([files.listing for files in listings])
    shards: list[tuple[Shard, Cut]] = []
    unreadable: dict[str, str] = {}
    for kind, origin in _origins(listings):
        for shard, cut, reason in _cut(
            kind.within(source.audio_root), origin, root, recorded or {}, source, recut=recut
        ):
            shards.append((shard, cut))
            if reason:
                unreadable[shard.name] = reason
    shards.sort(key=lambda shard: shard[0].name)
    listed, cuts = [shard for shard, _ in shards], [cut for _, cut in shards]
    if listed and len(unreadable) == len(listed):
        raise PlanError(f"source: {listed[0].url}: {unreadable[listed[0].name]}")
    for first, second in pairwise(listed):
        if first.name == second.name:
            both = f"{first.url} and {second.url} would both become {first.name}"
            raise PlanError(f"source: {both}; set source.root or rename one")
    passed_over = Counter(suffix_of(entry.path) for files in listings for entry in files.passed_over)
    faults = [fault for cut in cuts for fault in cut.faults]
    gone = [
        path if source.id else f"{shard.name.removesuffix('.parquet')}:{row}"
        for shard, cut in shards
        for row, path in cut.gone
    ]
    return Listed(
        root,
        tuple(listed) if source.labels is None else _with_label_shards(listed, source.labels, source),
        unreadable,
        dict(passed_over.most_common()),
        sum(cut.unnamed for cut in cuts),
        sum(cut.missing for cut in cuts),
        len(faults),
        tuple(faults[:FAULTS_SHOWN]),
        tuple(gone),
    )


def _origins(listings: Sequence[_Sorted]) -> Iterator[tuple[SourceKind, Origin]]:
    """Yield the folders of recordings, then the files that hold rows, each once, even if several urls list it."""
    recordings: dict[str, dict[str, Entry]] = {}
    files: dict[str, Entry] = {}
    for listing, holds_audio, *_ in listings:
        if holds_audio:
            recordings.setdefault(listing.root, {}).update((entry.path, entry) for entry in listing.entries)
        else:
            files |= {join_url(listing.root, entry.path): entry for entry in listing.entries}
    metadata = {listing.root: metadata for listing, *_, metadata in listings if metadata is not None}
    for folder, by_path in recordings.items():
        entries = tuple(by_path[path] for path in sorted(by_path))
        yield sources.kind_named(sources.FOLDER), Origin(folder, entries, metadata.get(folder))
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
    is_folder = listing.root == normalise(url)
    # Readers would ignore `_old.parquet` of a folder.
    names_hidden = url.rpartition("/")[2].startswith("_")
    shards: Sequence[Entry] = [
        entry
        for entry in listing.entries
        if sources.is_shard(entry.path, url, in_folder=is_folder)
        and (names_hidden or not entry.path.rpartition("/")[2].startswith("_"))
    ]
    recordings = [entry for entry in listing.entries if is_audio(entry.path)]
    metadata: Metadata | None = None
    described: Sequence[str] = ()
    if is_folder:
        shards = sources.chosen(listing.root, shards, storage_options)
    if is_folder and recordings:
        folders = sources.kind_named(sources.FOLDER).within(source.audio_root)
        content = Beside(listing.root, recordings, shards, listing.entries, source.text)
        with about("source", PlanError, ShardError):
            metadata, described = folders.described_by(content, storage_options)
    if metadata is not None:
        shards, metadata = [], metadata.as_listed(entry.path for entry in listing.entries)
        recordings = [entry for entry in listing.entries if is_audio(entry.path) or entry.path in metadata.checks]
    kept = tuple(shards or recordings)
    used = {*(entry.path for entry in kept), *described}
    other_files = tuple(
        entry
        for entry in listing.entries
        if entry.path not in used and not (shards and sources.describes_shards(entry.path.rpartition("/")[2]))
    )
    if not kept:
        raise PlanError(_nothing_to_label(url, other_files, is_folder=is_folder))
    chosen = Listing(listing.root, kept)
    check_names(chosen)
    _refuse_old_files(url, listing, [entry.path for entry in kept], storage_options, are_shards=bool(shards))
    return _Sorted(chosen, not shards, other_files, metadata)


def _refuse_old_files(
    url: str, listing: Listing, kept: Sequence[str], storage_options: Mapping[str, object], *, are_shards: bool
) -> None:
    """Raise if some files are of earlier versions of a table or repository."""
    place = normalise(url)
    if place == join_url(listing.root, kept[0]):  # a file, which a user may have taken from the log of a table
        return
    pattern = place.removeprefix(join_url(listing.root, "")) if place != listing.root else ""
    saw_root = not scheme_of(url) or not literal_prefix(pattern)
    seen = [*listing.markers, *(entry.path for entry in listing.entries)]
    with about("source.url", PlanError, ShardError):
        if are_shards:
            refuse_tables(listing.root, kept, seen, storage_options, saw_root=saw_root)
        refuse_revisions(listing.root, kept, storage_options)


def _nothing_to_label(url: str, other_files: Sequence[Entry], *, is_folder: bool) -> str:
    passed_over = Counter(suffix_of(entry.path) for entry in other_files)
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
    kind: SourceKind, origin: Origin, root: str, recorded: Mapping[str, Shard], source: Shards, *, recut: bool
) -> Iterator[tuple[Shard, Cut, str]]:
    """Cut a file or folder into named shards; one that cannot be cut is a shard with the reason."""
    place = _relative(origin.url, root) if origin.url != root else ""
    if kind.is_folder:  # in the folder's place, and named after it
        name = PurePosixPath(origin.url).name or "audio"
        stem = f"{place}/{name}" if place else name
    else:
        stem = kind.stem(place)
    if not kind.is_sliced:
        names: Iterable[str] = [f"{stem}.parquet"]
    else:
        names = (f"{stem}-{number:05}.parquet" for number in count())
    slice_name = re.compile(re.escape(stem) + r"-\d{5,}\.parquet")
    slices = [
        shard
        for name, shard in sorted(recorded.items())
        if kind.is_sliced and shard.kind == kind.name and slice_name.fullmatch(name)
    ]
    # Recorded slices that could not be read keep their place before others, and are cut again after the last one.
    while slices and not slices[-1].input_id:
        slices.pop()
    reason = ""
    try:
        cuts = kind.cut(origin, slices, source.storage_options, recut=recut)
    except (ShardError, StoreError, OSError, EOFError) as error:
        if slices or kind.is_folder or not isinstance(error, ShardError):
            raise PlanError(f"source: {origin.url}: {error}") from error
        [entry] = origin.entries
        cuts, reason = [Cut(entry.num_bytes, entry.version)], str(error)
    for name, cut in zip(names, cuts, strict=False):
        yield Shard(name, origin.url, cut.num_bytes, cut.version, 0, "", (), kind.name, cut.part), cut, reason


def _relative(url: str, root: str) -> str:
    """Return the path of a file or folder relative to the root."""
    if not url.startswith(beginning := join_url(root, "")):
        raise PlanError(f"source.root: {url} is not below {root}; give a folder that holds all shards")
    relative = PurePosixPath(url.removeprefix(beginning))
    for part in relative.parts:
        if part.startswith(("_", ".")):
            raise PlanError(f"source: {url}: readers ignore names that begin with {part[0]!r}; rename {part!r}")
    return relative.as_posix()


def _with_label_shards(shards: Sequence[Shard], labels: str, source: Shards) -> tuple[Shard, ...]:
    """Return listed shards with the places and versions of their label shards in the sink at `labels`."""
    sink = Sink.open(labels, options_beside(labels, source.urls[0], source.storage_options))
    with about("source.labels", PlanError, RayspError):
        record = sink.existing_record()
        labelled = sink.shards()
        done, foreign = commit.committed(sink.store, [*labelled.values()], record.fingerprint)
        versions = {entry.path: entry.version for entry in sink.store.list() if entry.path in done}
    absent = [shard.name for shard in shards if shard.name not in versions]
    if reasons := [foreign[name] for name in absent if name in foreign]:
        raise PlanError(f"source.labels: {words.listed(reasons, 1)}")
    if absent:
        raise PlanError(
            f"source.labels: {sink.url} has no finished label shard for {len(absent):,} of "
            f"{words.count(len(shards), 'shard')}, such as {absent[0]}: finish its run, and give the source.url and "
            "source.root that it has"
        )
    for shard in shards:
        before = labelled[shard.name]
        if (before.num_bytes, before.version) != (shard.num_bytes, shard.version):
            raise PlanError(
                f"source.labels: {sink.url} was made from another {shard.url} ({before.num_bytes:,} bytes, version "
                f"{before.version}; now {shard.num_bytes:,}, version {shard.version}): label it again"
            )
    of_labels = ((shard, join_url(sink.url, shard.name), versions[shard.name]) for shard in shards)
    return tuple(replace(shard, labels=url, labels_version=version) for shard, url, version in of_labels)


def refuse_listed_sink(source: Shards, listed: Sequence[Shard], sink_url: str) -> None:
    """Raise if a label shard would be listed as a shard or would overwrite one, or if the sink contains a shard.

    Raises:
        PlanError: sink and source overlap; the message has the url and the label shard.
    """
    sinks = {normalise(sink_url), real_place(normalise(sink_url))}
    shards = {place for shard in listed for place in (shard.url, real_place(shard.url))}
    folders = {shard.url for shard in listed if sources.kind_named(shard.kind).is_folder}
    files = shards.difference(folders, map(real_place, folders))
    patterns: list[tuple[str, str, str]] = []
    for url in source.urls:
        if (place := normalise(url)) in files:
            continue
        root, pattern = split_glob(place)
        if not pattern or (not scheme_of(place) and Path(place).is_dir()):
            root, pattern = place, "**/*.parquet"
        patterns += [(url, join_url(top, ""), pattern) for top in (root or "/", real_place(root or "/"))]
    for sink, shard in product(sinks, listed):
        place = join_url(sink, shard.name)
        lists = (
            url
            for url, top, pattern in patterns
            if place.startswith(top) and is_listed(place.removeprefix(top), pattern)
        )
        listing = next(lists, None)
        if listing is not None or place in shards:
            raise PlanError(
                f"sink.url: the label shard {place} would be one of the shards of source.url="
                f"{listing or shard.url!r}; choose a folder outside the source"
            )
    for sink, place in product(sinks, shards):
        if place.startswith(join_url(sink, "")):
            raise PlanError(
                f"sink.url: {sink} is a folder above the source {place}, which readers of the sink would take for "
                "labels; choose a folder outside the source"
            )


def real_place(place: str) -> str:
    """Return a local path with its links resolved; urls are unchanged."""
    return place if scheme_of(place) else os.path.realpath(place)


def check_root(sink: str, record: RunRecord, listed: Listed, recorded: Mapping[str, Shard]) -> None:
    """Raise unless a listing names its label shards as the sink does.

    A corpus that moved as a whole has another root and the same names, which is allowed.

    Args:
        sink: url of the sink.
        record: its record, with the root if that is known.
        listed: the listing.
        recorded: shards of earlier plans by name.

    Raises:
        ChangedError: the names differ; the message has both roots.
    """
    if record.root in (None, listed.root) or are_listed(listed.shards, recorded):
        return
    raise ChangedError(
        f"{sink}: its label shards are named relative to {record.root!r}, this source's to {listed.root!r}; "
        f"shards under a second name would be labelled twice. Set source.root={record.root!r}, undo the change of "
        "source.url, or use another sink",
        (f"source.root: {record.root!r} -> {listed.root!r}",),
    )


def are_listed(listed: Sequence[Shard], recorded: Mapping[str, Shard]) -> bool:
    """Return whether each recorded shard is listed with its name and content, and never with another name."""
    contents = {shard.name: (shard.num_bytes, shard.version, shard.labels_version) for shard in listed}
    names = {(shard.url, shard.part): shard.name for shard in listed}
    for name, shard in recorded.items():
        # The part of a whole file is known after its survey only.
        part = shard.part if sources.kind_named(shard.kind).is_sliced else ""
        content = (shard.num_bytes, shard.version, shard.labels_version)
        if contents.get(name) != content or names.get((shard.url, part), name) != name:
            return False
    return True


def of_commit(pipeline: Pipeline, record: RunRecord | None) -> Pipeline:
    """Return the pipeline with a data set of the hub replaced by the urls of its files at a commit.

    The commit is the recorded one, so that all runs of a sink read the same files; without a record, or if the source
    names a revision, it is the current one of that revision. Other sources are returned unchanged.

    Raises:
        PlanError: as `source_of_commit`.
    """
    if pipeline.source.split is None:
        return pipeline
    recorded = field_of(record.pipeline, "source") if record else None
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
    from raysp.corpus.hub_data import find_split

    name, _, revision = source.urls[0].partition("@")
    urls = field_of(recorded, "url")
    pinned = (_PINNED.fullmatch(str(url)) for url in (urls if isinstance(urls, list) else [urls]))
    at_commit = revision or next((match[2] for match in pinned if match and match[1] == name), None)
    options = source.storage_options
    root, files = find_split(name, source.split, source.config, revision=at_commit, storage_options=options)
    return replace(source, url=files, root=source.root or root, split=None, config=None)
