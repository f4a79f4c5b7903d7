"""Shards of lhotse Shar: a manifest of cuts (`cuts.000000.jsonl.gz`), and the tar file of their recordings beside it.

Rows are the cuts, in the order of the manifest. The tar file has a recording and its manifest, or two placeholders,
for each cut, under the cut's id; other fields, such as features, are not read.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, zip_longest
from typing import Any

import pyarrow as pa

from raysp import bounds
from raysp.bounds import shortened
from raysp.corpus.archive import ArchiveFile, Member, read_members
from raysp.corpus.shards import (
    JSON_TEXTS,
    Cut,
    Options,
    Origin,
    Piece,
    Shard,
    SourceKind,
    Survey,
    check_same,
    one_line,
    place_of,
)
from raysp.corpus.tars import (
    Sample,
    batches_of,
    open_archive,
    pack,
    plain_values,
    read_layout,
    read_samples,
    rows_of,
    unpack,
)
from raysp.errors import ShardError, StoreError
from raysp.storage.audio_root import canonical
from raysp.storage.store import Entry
from raysp.storage.text_content import HiddenError, text_of
from raysp.words import count

CUTS = re.compile(r"(?:.*/)?cuts(?:(\.\d{6,})\.jsonl(?:\.gz)?|((?:\.[\w-]+)?)\.jsonl\.gz)")
FIELD = re.compile(r"(?:.*/)?\w+?((?:\.[\w-]+)?)\.(?:tar|jsonl(?:\.gz)?)")
"""Name of a file of any field of a shard."""
NUMBERED = re.compile(r"(?:.*/)?\w+\.\d{6,}\.(?:tar|jsonl(?:\.gz)?)|(?:.*/)?recording(?:\.[\w-]+)?\.tar")
"""Name of a file that belongs to a shard for certain."""
MOST_FILE_BYTES, MOST_BYTES = 64 * 2**20, 256 * 2**20
"""Maximum sizes of a manifest, and of its uncompressed content."""
MOST_SECONDS = 1e6
LONGEST_DIFFERENCE = 0.01
"""Seconds by which durations may differ, by rounding."""
ORIGINAL = ".original"
"""Suffix of recordings that are stored as they were."""
_OF_SUPERVISION = ("speaker", "language", "gender")
_OF_CUT = {"id", "audio", "duration", "text", "supervisions", *_OF_SUPERVISION}


@dataclass(frozen=True)
class Cuts:
    """The cuts of a manifest."""

    num_bytes: int
    """Size of the file."""
    check: str
    """Hash of the file."""
    values: Mapping[str, dict[str, object]]
    """Values of each cut by its id, in order."""

    @property
    def seconds(self) -> float | None:
        """Seconds of all recordings; None if a cut has no duration."""
        durations = [cut.get("duration") for cut in self.values.values()]
        return sum(map(float, durations)) if all(isinstance(value, int | float) for value in durations) else None  # type: ignore[arg-type]

    def of(self, _: ArchiveFile, sample: Sample) -> dict[str, object]:
        """Return the values of a sample."""
        return self.values[self.name_of(sample.key)]

    def name_of(self, key: str) -> str:
        """Return the cut of a key of the tar file, which may have it in another Unicode normal form."""
        return key if key in self.values else self._by_form.get(canonical(key), key)

    @cached_property
    def _by_form(self) -> Mapping[str, str]:
        counts = Counter(map(canonical, self.values))
        return {canonical(name): name for name in self.values if counts[canonical(name)] == 1}


@dataclass(frozen=True)
class _Found:
    """Facts that identify the content of a shard."""

    digest: str

    @classmethod
    def of(cls, cuts: Cuts, digest_of_tar: str) -> "_Found":
        return cls(hashlib.sha256(f"{cuts.check} {digest_of_tar}".encode()).hexdigest()[:16])


class SharKind(SourceKind):
    """Cuts of lhotse Shar."""

    name = "shar"
    described = "lhotse Shar (cuts.*.jsonl.gz beside recording.*.tar)"
    has_ids = True
    as_texts = JSON_TEXTS
    has_faults = True

    def claims(self, name: str, *, in_folder: bool = False) -> bool:
        """Return whether a file is a manifest of cuts."""
        return CUTS.fullmatch(name) is not None

    def describes(self, name: str) -> bool:
        """Return whether a file belongs to a shard."""
        return NUMBERED.fullmatch(name) is not None

    def stem(self, path: str) -> str:
        """Return a file's path without its suffixes."""
        return path.removesuffix(".gz").removesuffix(".jsonl")

    def chosen(self, root: str, entries: Sequence[Entry], storage_options: Options) -> Sequence[Entry]:
        """Return the files of a folder without the tar files of shards."""
        shards = {_shard_of(entry.path, match) for entry in entries if (match := CUTS.fullmatch(entry.path))}
        return [
            entry
            for entry in entries
            if self.claims(entry.path)
            or not ((match := FIELD.fullmatch(entry.path)) and _shard_of(entry.path, match) in shards)
        ]

    def cut(self, origin: Origin, recorded: Sequence[Shard], storage_options: Options, *, recut: bool) -> list[Cut]:
        """Return one shard, with the size and the version of both files."""
        [entry] = origin.entries
        store, path = place_of(_tar_beside(origin.url), storage_options)
        if (tar := store.stat(path)) is None:  # the survey says so
            return [Cut(entry.num_bytes, entry.version)]
        return [Cut(entry.num_bytes + tar.num_bytes, f"{entry.version} {tar.version}")]

    def survey(
        self, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Survey a shard by its cuts, and by the headers of the tar file or its recorded part.

        Raises:
            ShardError: one of the files is missing or damaged, or they do not fit together.
            StoreError: they are not readable.
        """
        cuts = read_cuts(url, storage_options)
        if part:
            layout = unpack(part)
        else:
            with open_archive(tar_of(url, storage_options), storage_options) as file:
                layout = read_layout(file, _checked(samples_of(file), cuts, url), cuts.of)
        nulls = frozenset[str]() if layout.has_audio else frozenset({"audio", "audio.bytes"})
        digest = _Found.of(cuts, layout.digest).digest
        groups = layout.groups(layout.seconds if cuts.seconds is None else cuts.seconds)
        return Survey(layout.schema, layout.num_rows, groups, digest, nulls, cuts.seconds, part=pack(layout))

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options = None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows in the order of the cuts, in batches of some megabytes."""
        layout, cuts = unpack(shard.part), read_cuts(shard.url, storage_options)
        with open_archive(tar_of(shard.url, storage_options), storage_options) as file:
            check_same(shard, cuts.num_bytes + file.num_bytes, _Found.of(cuts, layout.digest))
            spans = read_samples(file, layout, piece, with_audio="audio" in columns, samples_of=samples_of)
            for row, samples in spans:
                for batch in batches_of(samples[max(0, piece.first - row) : piece.end - row]):
                    yield rows_of(file, batch, columns, layout.schema, cuts.of)

    def narrow(self, shard: Shard, piece: Piece) -> Shard:
        """Return a shard reduced to one of its pieces, with its spans alone."""
        return replace(shard, pieces=(piece,), part=pack(unpack(shard.part).overlapping(piece)))


def _shard_of(path: str, match: re.Match[str]) -> tuple[str, str]:
    """Return the folder of a shard, and the common part of its files' names."""
    return path.rpartition("/")[0], match[1] or (match[2] if match.re is CUTS else "") or ""


def _tar_beside(url: str) -> str:
    folder, slash, name = url.rpartition("/")
    match = CUTS.fullmatch(name)
    assert match is not None, url
    return f"{folder}{slash}recording{_shard_of(name, match)[1]}.tar"


def tar_of(url: str, storage_options: Options) -> str:
    """Return the url of the recordings of a manifest of cuts.

    Raises:
        ShardError: the tar file is missing.
    """
    tar = _tar_beside(url)
    store, path = place_of(tar, storage_options)
    if store.stat(path) is None:
        raise ShardError(f"{url}: {path} is missing beside it; expected the recordings of its cuts, as lhotse Shar has")
    return tar


def samples_of(file: ArchiveFile, first: int = 0, end: int | None = None) -> Iterator[Sample]:
    """Yield the files of each cut, which share a name up to its last dot; see `read_members`."""
    for key, group in groupby(read_members(file, first, end), lambda member: member.name.rpartition(".")[0]):
        files: dict[str, Member] = {}
        for member in group:
            suffix = member.name.rpartition(".")[2].lower()
            named = member._replace(name=f"{member.name}.wav") if member.name.endswith(ORIGINAL) else member
            if files.setdefault(suffix, named) is not named:
                raise ShardError(
                    f"{file.url}: cut {shortened(key)} has two files {shortened(suffix)}, expected one. Write it again"
                )
        sample = Sample(key, files)
        if len(sample.recordings) + ("nodata" in files) > 1:
            raise ShardError(
                f"{file.url}: cut {shortened(key)} has several recordings, expected one. Write the shard again"
            )
        yield sample


def _checked(samples: Iterable[Sample], cuts: Cuts, url: str) -> Iterator[Sample]:
    """Yield samples, and raise ShardError unless they are the samples of the cuts, in order."""
    for number, (sample, cut) in enumerate(zip_longest(samples, cuts.values), 1):
        if sample is None or cuts.name_of(sample.key) != cut:
            content = "its end" if sample is None else shortened(sample.key)
            expected = "its end" if cut is None else shortened(cut)
            raise ShardError(
                f"{url}: cut {number:,}: the tar file beside it has {content}, expected {expected}; the files are not "
                "of one shard. Write it again"
            )
        yield sample


def read_cuts(url: str, storage_options: Options) -> Cuts:
    """Read a manifest of cuts.

    Raises:
        ShardError: it is damaged, has a cut without an id, or one twice.
    """
    store, name = place_of(url, storage_options)
    try:
        with store.open(name) as file:
            if (size := int(file.size())) > MOST_FILE_BYTES:
                raise ShardError(f"{url}: has {count(size, 'byte')}; expected at most {MOST_FILE_BYTES:,}")
            raw = file.read()
    except (ShardError, StoreError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{url}: {one_line(error)}. Copy the shard again") from error
    values: dict[str, dict[str, object]] = {}
    for number, line in enumerate(_lines(url, raw), 1):
        identity, value = _cut(f"{url}: line {number}", line)
        if identity in values:
            raise ShardError(f"{url}: line {number}: cut {shortened(identity)} occurs again. Write the shard again")
        values[identity] = value
    return Cuts(len(raw), hashlib.sha256(raw).hexdigest(), values)


def _lines(url: str, raw: bytes) -> Iterator[bytes]:
    text = _plain(url, raw)
    for line in text.splitlines():
        if len(line) > bounds.MOST_LINE_BYTES:
            raise ShardError(
                f"{url}: a line has {count(len(line), 'byte')}; expected at most {bounds.MOST_LINE_BYTES:,}"
            )
        if line.strip():
            yield line


def _plain(url: str, raw: bytes) -> bytes:
    """Return the content of a manifest, decompressed if it is gzip, whose members follow each other."""
    try:
        return text_of(raw, MOST_BYTES, "JSON lines")
    except bounds.TooLargeError:
        raise ShardError(
            f"{url}: has more than {MOST_BYTES:,} bytes uncompressed, or {bounds.MOST_RATIO} times its size; expected "
            "a manifest of cuts"
        ) from None
    except EOFError:
        raise ShardError(
            f"{url}: the gzip file ends early; expected a gzip file that is whole. Copy the shard again"
        ) from None
    except bounds.DAMAGED as error:
        raise ShardError(f"{url}: {one_line(error)}; expected a gzip file. Copy the shard again") from None
    except HiddenError as error:
        raise ShardError(f"{url}: {error}") from None


def _cut(place: str, line: bytes) -> tuple[str, dict[str, object]]:
    """Return the id of a cut, as the tar file has it, and its values as columns hold them."""
    try:
        cut = bounds.parse_values(line)
    except ValueError as error:
        raise ShardError(f"{place}: is not JSON ({one_line(error)}). Write the shard again") from None
    if not isinstance(cut, dict) or not isinstance(identity := cut.get("id"), str):
        raise ShardError(f"{place}: is {line[:40]!r}; expected a cut with an id")
    try:
        _check_span(cut)
        values = plain_values({name: value for name, value in _values(cut).items() if value is not None})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ShardError(
            f"{place}: cut {shortened(identity)} is not a cut of a recording ({bounds.plain(error)})"
        ) from None
    return identity.removeprefix("./"), values


def _check_span(cut: Mapping[str, Any]) -> None:
    """Raise ValueError unless a cut is all of its recording in the tar file."""
    kind, start, seconds = cut.get("type", "MonoCut"), cut.get("start") or 0, cut.get("duration")
    if kind not in ("MonoCut", "MultiCut") or "tracks" in cut:
        raise ValueError(f"its type is {shortened(kind)}; expected MonoCut or MultiCut")
    if start != 0:
        raise ValueError(f"it starts at {shortened(start)}; expected 0, as lhotse writes it")
    if seconds is None:
        return
    if isinstance(seconds, bool) or not 0 < seconds < MOST_SECONDS:
        raise ValueError(f"its duration is {shortened(seconds)}; expected seconds")
    whole = (cut.get("recording") or {}).get("duration", seconds)
    if abs(whole - seconds) > LONGEST_DIFFERENCE:
        raise ValueError(
            f"its duration is {shortened(seconds)}, its recording has {shortened(whole)}; expected the same"
        )


def _values(cut: Mapping[str, Any]) -> dict[str, object]:
    """Return the values of a cut, the values of its first supervision, and the texts of all supervisions in order."""
    spoken = sorted(cut.get("supervisions") or (), key=lambda value: float(value.get("start") or 0))
    custom = {**(dict(spoken[0].get("custom") or {}) if spoken else {}), **dict(cut.get("custom") or {})}
    values: dict[str, object] = {f"custom_{name}" if name in _OF_CUT else name: value for name, value in custom.items()}
    values |= {"id": cut["id"], "duration": cut.get("duration")}
    if texts := [str(value["text"]) for value in spoken if value.get("text") is not None]:
        values["text"] = " ".join(texts)
    if spoken:
        values |= {name: spoken[0].get(name) for name in _OF_SUPERVISION} | {"supervisions": spoken}
    return values
