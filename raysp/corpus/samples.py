"""Samples of tar files: neighbouring files that share a name up to its first dot, as WebDataset groups them."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import pyarrow as pa

from raysp import bounds
from raysp.bounds import shortened
from raysp.corpus.archive import ArchiveFile, Member, read_members
from raysp.corpus.kinds import FAULT
from raysp.corpus.manifests import AUDIO_TYPE, json_column
from raysp.corpus.recording_names import is_audio
from raysp.corpus.shards import one_line
from raysp.errors import ShardError
from raysp.text.normalisation import fault_of, is_unicode, json_text, plain_text, storable

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
        return [one for one in self.files.values() if is_audio(one.name)]


def samples_of(file: ArchiveFile, first: int = 0, end: int | None = None) -> Iterator[Sample]:
    """Yield the samples of an archive in order; see `read_members`. Files without a suffix are left out."""
    members = (one for one in read_members(file, first, end) if all(_split(one.name)))
    for key, group in groupby(members, lambda one: _split(one.name)[0]):
        files: dict[str, Member] = {}
        for one in group:
            if files.setdefault(suffix := _split(one.name)[1], one) is not one:
                raise ShardError(
                    f"{file.url}: at byte {one.place:,}: sample {shortened(key)} has two files "
                    f"{shortened(suffix)}; expected one. "
                    "Write the shard again"
                )
        sample = Sample(key, files)
        if len(sample.recordings) > 1:
            names = ", ".join(shortened(one.name) for one in sample.recordings[:5])
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
    return zlib.crc32(repr([tuple(one) for sample in samples for one in sample.files.values()]).encode())


def batches_of(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Yield neighbouring samples with some megabytes of recordings."""
    batch: list[Sample] = []
    held = 0
    for sample in samples:
        batch.append(sample)
        held += sum(one.num_bytes for one in sample.recordings)
        if held >= READ_BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


Values = Callable[[ArchiveFile, Sample], dict[str, object]]
"""Function that returns the values of a sample."""


def rows_of(
    file: ArchiveFile, samples: Sequence[Sample], columns: Sequence[str], schema: pa.Schema, values_of: Values
) -> pa.RecordBatch:
    """Read columns of samples, a row for each; columns that a sample lacks are null."""
    has_values = not {*columns} <= {"audio"}
    values = [values_of(file, one) if has_values else {} for one in samples]
    found: dict[str, pa.Array[Any]] = {}
    for name in columns:
        if name == "audio":
            found[name] = pa.array([_recording(file, one) for one in samples], AUDIO_TYPE)
        elif name == "id":
            ids = [
                one.key if given.get("id") is None else given["id"] for one, given in zip(samples, values, strict=True)
            ]
            found[name] = json_column([*ids], pa.string())
        elif name == FAULT:
            faults = [[fault for column, fault in _faults(one).items() if column in columns] for one in values]
            found[name] = pa.array([one[0] if one else None for one in faults], pa.string())
        else:
            kind = schema.field(name).type
            found[name] = json_column([one.get(name) for one in values], kind)
    return pa.RecordBatch.from_arrays([*found.values()], names=[*found])


def _recording(file: ArchiveFile, sample: Sample) -> dict[str, object] | None:
    for one in sample.recordings:
        return {"bytes": file.range(one.first, one.num_bytes), "path": None}
    return None
