"""Shards in tar files, as WebDataset writes them: a row for the files that share a name up to its first dot.

A survey reads the headers, and the texts and JSON objects. It records positions in the file every few megabytes, so
that a piece is read from its own byte range.
"""

import base64
import functools
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple, cast

import pyarrow as pa

from raysp import bounds
from raysp.bounds import MOST_COLUMNS, shortened
from raysp.corpus.archive import ArchiveFile, Member, read_members
from raysp.corpus.manifests import AUDIO_TYPE, json_column
from raysp.corpus.shards import (
    FAULT,
    JSON_TEXTS,
    Group,
    Options,
    Piece,
    Shard,
    SourceKind,
    Survey,
    check_same,
    estimated_seconds,
    is_audio,
    one_line,
    place_of,
    refuse_ray_types,
)
from raysp.errors import ShardError, StoreError
from raysp.storage.store import LocalStore
from raysp.text.error_rates import fault_of, is_unicode, json_text, plain_text, storable
from raysp.words import RESTORE, count

READ_BATCH_BYTES = 16 * 1024 * 1024
_TEXT, _JSON = "txt", "json"


class Sample(NamedTuple):
    """Neighbouring files of an archive that share a key."""

    key: str
    files: Mapping[str, Member]
    """Files by suffix, such as "flac"."""

    @property
    def place(self) -> int:
        """Offset of its first header."""
        return next(iter(self.files.values())).place

    @property
    def recordings(self) -> list[Member]:
        """Files that are recordings by their suffix."""
        return [member for member in self.files.values() if is_audio(member.name)]


def samples_of(file: ArchiveFile, first: int = 0, end: int | None = None) -> Iterator[Sample]:
    """Yield the samples of an archive in order; see `read_members`. Files without a suffix are left out."""
    members = (member for member in read_members(file, first, end) if all(_split(member.name)))
    for key, group in groupby(members, lambda member: _split(member.name)[0]):
        files: dict[str, Member] = {}
        for member in group:
            if files.setdefault(suffix := _split(member.name)[1], member) is not member:
                raise ShardError(
                    f"{file.url}: at byte {member.place:,}: sample {shortened(key)} has two files "
                    f"{shortened(suffix)}; expected one. "
                    "Write the shard again"
                )
        sample = Sample(key, files)
        if len(sample.recordings) > 1:
            names = ", ".join(shortened(member.name) for member in sample.recordings[:5])
            raise ShardError(
                f"{file.url}: sample {shortened(key)} has the recordings {names}; expected one. Write it again"
            )
        yield sample


def _split(name: str) -> tuple[str, str]:
    """Return the key of a file and its suffix in lower case; one of them is empty if it belongs to no sample."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder}{slash}{stem}" if stem else ""), suffix.lower()


def values_of(file: ArchiveFile, sample: Sample) -> dict[str, object]:
    """Return the values of a sample's JSON object, the text of its text file as `text`, and `FAULT` as `plain_values`.

    Raises:
        ShardError: the object is no JSON object, or has a key `audio`.
    """
    values = _parse(file, sample, sample.files[_JSON]) if _JSON in sample.files else {}
    if _TEXT in sample.files:
        member = sample.files[_TEXT]
        try:
            values["text"] = plain_text(_content(file, member))
        except ValueError as error:
            reason = f"{shortened(member.name)} in {file.url} {error}"
            values |= {"text": None, FAULT: {**_faults(values), "text": reason}}
    return values


def _parse(file: ArchiveFile, sample: Sample, member: Member) -> dict[str, object]:
    try:
        raw = _content(file, member)
        values = bounds.parse_values(raw)
    except bounds.TooLargeError as error:
        raise ShardError(f"{file.url}: {shortened(member.name)} {error}") from None
    except ValueError as error:
        raise ShardError(f"{file.url}: {shortened(member.name)} is not JSON ({one_line(error)}): correct it") from None
    if not isinstance(values, dict):
        raise ShardError(f"{file.url}: {shortened(member.name)} is {raw[:40]!r}; expected a JSON object")
    if "audio" in values:
        raise ShardError(
            f"{file.url}: {shortened(member.name)} has a key 'audio', the name of the recordings; rename it"
        )
    return plain_values(values)


def plain_values(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of a JSON object as columns hold them, and in `FAULT` why some are no text of Unicode."""
    plain = {storable(name): _plain(value) for name, value in values.items() if name != FAULT}
    faults = {storable(name): fault for name, value in values.items() if (fault := fault_of(name, value))}
    return {**plain, FAULT: faults} if faults else plain


def _faults(values: Mapping[str, object]) -> Mapping[str, str]:
    """Return why values cannot be read, by their columns."""
    return cast("Mapping[str, str]", values.get(FAULT, {}))


def _plain(value: object) -> object:
    """Return a value of a column, or JSON as text for values that no column of numbers or booleans holds."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**53) <= value <= 2**53:
        return value
    if isinstance(value, str):
        return value if is_unicode(value) else None
    return json_text(value)


def _content(file: ArchiveFile, member: Member) -> bytes:
    """Return the bytes of a text or object; raises TooLargeError for too many."""
    bounds.check(member.num_bytes, bounds.MOST_JSON_BYTES, "bytes")
    return file.range(member.first, member.num_bytes)


def check_of(samples: Sequence[Sample]) -> int:
    """Hash the headers of samples."""
    return zlib.crc32(repr([tuple(member) for sample in samples for member in sample.files.values()]).encode())


def batches_of(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Yield neighbouring samples with some megabytes of recordings."""
    batch: list[Sample] = []
    num_bytes = 0
    for sample in samples:
        batch.append(sample)
        num_bytes += sum(recording.num_bytes for recording in sample.recordings)
        if num_bytes >= READ_BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


Values = Callable[[ArchiveFile, Sample], dict[str, object]]
"""Function that returns the values of a sample."""


def rows_of(
    file: ArchiveFile, samples: Sequence[Sample], columns: Sequence[str], schema: pa.Schema, values_of: Values
) -> pa.RecordBatch:
    """Read columns of samples, a row for each; columns that a sample lacks are null."""
    has_values = not {*columns} <= {"audio"}
    values = [values_of(file, sample) if has_values else {} for sample in samples]
    arrays: dict[str, pa.Array[Any]] = {}
    for name in columns:
        if name == "audio":
            arrays[name] = pa.array([_recording(file, sample) for sample in samples], AUDIO_TYPE)
        elif name == "id":
            ids = [
                sample.key if row.get("id") is None else row["id"] for sample, row in zip(samples, values, strict=True)
            ]
            arrays[name] = json_column([*ids], pa.string())
        elif name == FAULT:
            faults = [[fault for column, fault in _faults(row).items() if column in columns] for row in values]
            arrays[name] = pa.array([of_row[0] if of_row else None for of_row in faults], pa.string())
        else:
            kind = schema.field(name).type
            arrays[name] = json_column([row.get(name) for row in values], kind)
    return pa.RecordBatch.from_arrays([*arrays.values()], names=[*arrays])


def _recording(file: ArchiveFile, sample: Sample) -> dict[str, object] | None:
    for member in sample.recordings:
        return {"bytes": file.range(member.first, member.num_bytes), "path": None}
    return None


SPAN_BYTES, SPAN_ROWS = 8 * 1024 * 1024, 400
"""Bytes or rows from which a span, which is read at once, ends."""
Samples = Callable[[ArchiveFile, int, int | None], Iterator[Sample]]
"""Function that yields the samples of a range of an archive."""
_OWN = ("id", "audio")
_OF_SHAR = re.compile(r"recording(\.\d{6,})?\.tar")
_COMPRESSED = (".tar.gz", ".tgz")


class Span(NamedTuple):
    """Neighbouring samples that are read together."""

    row: int
    """Number of its first row."""
    place: int
    """Offset of its first header."""
    check: int
    """Hash of its headers."""


@dataclass(frozen=True)
class Layout:
    """Spans and columns of an archive, or of a part of it."""

    spans: tuple[Span, ...]
    num_rows: int
    """Rows up to the end of the last span."""
    end: int
    """Offset of the end of the last span."""
    schema: pa.Schema
    digest: str
    has_audio: bool = True
    seconds: float = 0.0
    """Estimated seconds of the recordings of the archive; 0 if it is recorded, and so cut."""

    @property
    def ends(self) -> list[tuple[int, int]]:
        """Row and offset of the end of each span."""
        return [*((span.row, span.place) for span in self.spans[1:]), (self.num_rows, self.end)]

    def groups(self, seconds: float) -> list[Group]:
        """Return the spans as groups with their shares of the seconds of the archive."""
        sizes = [(row - span.row, end - span.place) for span, (row, end) in zip(self.spans, self.ends, strict=True)]
        in_all = max(1, sum(num_bytes for _, num_bytes in sizes))
        return [Group(num_rows, num_bytes, seconds * num_bytes / in_all) for num_rows, num_bytes in sizes]

    def overlapping(self, piece: Piece) -> "Layout":
        """Return the spans that hold rows of a piece."""
        kept = [
            (span, end)
            for span, end in zip(self.spans, self.ends, strict=True)
            if span.row < piece.end and end[0] > piece.first
        ]
        num_rows, end = kept[-1][1] if kept else (0, 0)
        return replace(self, spans=tuple(span for span, _ in kept), num_rows=num_rows, end=end)


class TarKind(SourceKind):
    """Tar files of samples (WebDataset)."""

    name = "tar"
    has_ids = True
    ids_are_paths = True
    has_faults = True
    suffixes = (".tar", *_COMPRESSED)
    folder_suffixes = (".tar",)
    described = "tar files of samples (*.tar)"
    as_texts = JSON_TEXTS

    def survey(
        self, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Survey a shard by its headers and JSON objects, or by its recorded part.

        Raises:
            ShardError: the archive is damaged, a sample occurs twice or holds several recordings, or an object is no
                JSON.
            StoreError: the shard is missing or not readable.
        """
        if part:
            layout = unpack(part)
        else:
            if _OF_SHAR.fullmatch(url.rpartition("/")[2]):
                raise ShardError(
                    f"{url}: has the name of recordings of lhotse Shar; expected cuts*.jsonl.gz beside it, and "
                    "their folder as source.url. Rename it if it is another tar file"
                )
            with open_archive(url, storage_options) as file:
                layout = read_layout(file, samples_of(file), values_of)
        nulls = frozenset[str]() if layout.has_audio else frozenset({"audio", "audio.bytes"})
        groups = layout.groups(layout.seconds)
        return Survey(layout.schema, layout.num_rows, groups, layout.digest, nulls, part=pack(layout))

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options = None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows in the order of the archive, in batches of some megabytes."""
        layout = unpack(shard.part)
        with open_archive(shard.url, storage_options) as file:
            check_same(shard, file.num_bytes, layout)
            for row, samples in read_samples(file, layout, piece, with_audio="audio" in columns):
                chosen = samples[max(0, piece.first - row) : piece.end - row]
                for batch in batches_of(chosen):
                    yield rows_of(file, batch, columns, layout.schema, values_of)

    def narrow(self, shard: Shard, piece: Piece) -> Shard:
        """Return a shard reduced to one of its pieces, with its spans alone."""
        return replace(shard, pieces=(piece,), part=pack(unpack(shard.part).overlapping(piece)))


@contextmanager
def open_archive(url: str, storage_options: Options) -> Iterator[ArchiveFile]:
    """Open a tar file. Errors while it is read are raised as `ShardError`."""
    store, name = place_of(url, storage_options)
    try:
        with store.open(name) as file:
            yield ArchiveFile(url, file, may_jump=isinstance(store, LocalStore))
    except (ShardError, StoreError):
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{url}: {one_line(error)}. Copy the shard again") from error


def read_layout(file: ArchiveFile, samples: Iterable[Sample], values_of: Values) -> Layout:
    """Read the layout of an archive.

    Args:
        file: the archive.
        samples: all of its samples.
        values_of: function that returns the values of a sample.

    Raises:
        ShardError: see `TarKind.survey`.
    """
    surveying = _Surveying(values_of)
    keys: set[str] = set()
    for sample in samples:
        if sample.key in keys:
            raise ShardError(
                f"{file.url}: at byte {sample.place:,}: sample {shortened(sample.key)} occurs "
                f"again; expected its files side by "
                "side. Write the shard again in the order of names (tar --sort=name)"
            )
        keys.add(sample.key)
        surveying.add(file, sample)
    return surveying.layout()


@dataclass
class _Surveying:
    """Layout of the samples so far."""

    values_of: Values
    spans: list[Span] = field(default_factory=list)
    num_rows: int = 0
    end: int = 0
    types: dict[str, set[type]] = field(default_factory=dict)
    has_audio: bool = False
    seconds: float = 0.0
    _held: list[Sample] = field(default_factory=list)

    def add(self, file: ArchiveFile, sample: Sample) -> None:
        """Add the next sample."""
        if self._held and (sample.place - self._held[0].place >= SPAN_BYTES or len(self._held) >= SPAN_ROWS):
            self._end_span()
        self._held.append(sample)
        self.num_rows += 1
        # Contents are padded to blocks of 512 bytes, after which the next header begins.
        self.end = max(-(-(member.first + member.num_bytes) // 512) * 512 for member in sample.files.values())
        self.has_audio |= bool(sample.recordings)
        self.seconds += sum(estimated_seconds(member.num_bytes, member.name) for member in sample.recordings)
        for name, value in self.values_of(file, sample).items():
            if name == FAULT:
                continue
            self.types.setdefault(name, set()).update(() if value is None else (type(value),))
        if len(self.types) > MOST_COLUMNS:
            raise ShardError(
                f"{file.url}: its JSON objects have more than {count(MOST_COLUMNS, 'key')}; expected columns. "
                "Write the shard again"
            )

    def _end_span(self) -> None:
        self.spans.append(Span(self.num_rows - len(self._held), self._held[0].place, check_of(self._held)))
        self._held = []

    def layout(self) -> Layout:
        """Return the layout of all samples."""
        if self._held:
            self._end_span()
        fields = [pa.field(name, _type_of(types)) for name, types in self.types.items() if name not in _OWN]
        schema = pa.schema([pa.field("id", pa.string()), pa.field("audio", AUDIO_TYPE), *fields])
        digest = hashlib.sha256(repr((self.spans, self.end, str(schema))).encode()).hexdigest()[:16]
        return Layout(tuple(self.spans), self.num_rows, self.end, schema, digest, self.has_audio, self.seconds)


def _type_of(types: set[type]) -> pa.DataType:
    """Return the type of a column by the types of its values in JSON, as manifests have it."""
    if not types:
        return pa.null()
    if types == {bool}:
        return pa.bool_()
    if types <= {int, float}:
        return pa.int64() if types == {int} else pa.float64()
    return pa.string()


def read_samples(
    file: ArchiveFile, layout: Layout, piece: Piece, *, with_audio: bool, samples_of: Samples = samples_of
) -> Iterator[tuple[int, list[Sample]]]:
    """Yield the spans that overlap a piece: number of the first row, samples.

    Raises:
        ShardError: the headers of a span changed since they were surveyed.
    """
    spans = layout.overlapping(piece)
    for span, (_, end) in zip(spans.spans, spans.ends, strict=True):
        if with_audio and end - span.place <= 2 * SPAN_BYTES:
            file.load(span.place, end)
        samples = list(samples_of(file, span.place, end))
        if check_of(samples) != span.check:
            raise ShardError(f"{file.url}: changed since it was planned. {RESTORE}")
        yield span.row, samples


def pack(layout: Layout) -> str:
    """Return a layout as text."""
    value = {
        "spans": layout.spans,
        "end": (layout.num_rows, layout.end),
        "schema": base64.b64encode(layout.schema.serialize()).decode(),
        "digest": layout.digest,
        "has_audio": layout.has_audio,
    }
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


@functools.lru_cache(maxsize=4)
def unpack(part: str) -> Layout:
    """Return the layout of a shard, which may be narrowed.

    Raises:
        ShardError: the recorded layout is damaged.
    """
    try:
        raw = bounds.unzipped(base64.b64decode(part), bounds.MOST_RECORD_BYTES)
        value = bounds.parse_json(raw, bounds.MOST_RECORD_BYTES)
        raw_schema = base64.b64decode(value["schema"])
        refuse_ray_types("its recorded layout", raw_schema)
        schema = pa.ipc.read_schema(pa.py_buffer(raw_schema))
        spans = tuple(Span(*map(int, span)) for span in value["spans"])
        num_rows, end = map(int, value["end"])
        return Layout(spans, num_rows, end, schema, str(value["digest"]), bool(value["has_audio"]))
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ShardError(
            f"the recorded layout of a tar file is damaged ({one_line(error)}). Use another sink"
        ) from None
