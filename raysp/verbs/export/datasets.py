"""Export to a folder that `datasets.load_dataset` opens: labels, with the recordings of the source."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from raysp.audio import Channel, DecodeOptions, TooLong
from raysp.audio.encoding import encode_flac
from raysp.audio.isolation import Decoder
from raysp.columns import SECONDS
from raysp.corpus.shards import AUDIO, SECONDS_BY_PATH, Shard
from raysp.corpus.sources import kind_named
from raysp.errors import AudioError
from raysp.ops.recordings import Recordings
from raysp.specs.steps import EACH
from raysp.specs.values import spec
from raysp.verbs.export.dataset_card import AUDIO_COLUMN, Split, write_card
from raysp.verbs.export.destination import Destination, ShardFiles, Tally
from raysp.verbs.export.export_rows import ok_rows
from raysp.verbs.export.shard_export import Writer
from raysp.verbs.export.source_audio import Source

GROUP_BYTES = 64 * 1024 * 1024
"""Bytes of recordings of a row group, unless one row has more."""
GROUP_ROWS = 1000
PCM_BYTES = 32_000
"""Assumed bytes of a second of a recording of unknown format: 16 bits at 16 kHz."""
LABEL_BYTES = 1_000
"""Assumed bytes of a row without its recording."""
MOST_BYTES = 2**31 - 1
"""Of a value of a Parquet file of the layout of `datasets`."""
FLAC_CHANNELS = 8
"""Largest number of channels of a FLAC file."""


ShardBytes = Annotated[int, Field(gt=0)]
"""Largest number of bytes of the rows of a file, unless one row group has more."""
GROUPS_A_FILE = 8
"""Row groups of a file of that size, at least."""


@dataclass
class _DataFile:
    scratch: Path
    writer: pq.ParquetWriter
    closing: ExitStack
    """Closes the writer, and publishes the file."""
    num_bytes: int = 0


def expected_bytes(shard: Shard, bytes_a_second: float) -> float:
    """Return the bytes that the recordings of a shard probably take at a rate: by its claims, else as it is stored."""
    if shard.seconds is None and kind_named(shard.kind).holds_audio:
        return shard.num_bytes
    return bytes_a_second * (shard.num_rows * SECONDS_BY_PATH if shard.seconds is None else shard.seconds)


class DataFiles:
    """Parquet files of a label shard: of each split one, or several of at most `shard_bytes` bytes.

    A file ends before the row group with which its rows would exceed that, as Arrow tables: `data/NAME-00000.parquet`
    and so on. Neighbours that together are expected to have fewer bytes are written as one label shard. Of several
    splits each has a folder in `data`. So the files depend on the plan and on the rows alone. The first split has a
    file also without rows. Files are published as they end.

    Args:
        files: receives the files.
        schema: columns.
        shard_bytes: largest number of bytes of a file; None: one file.
        splits: names of the splits.
    """

    def __init__(
        self, files: ShardFiles, schema: pa.Schema, shard_bytes: int | None, splits: Sequence[str], closing: ExitStack
    ) -> None:
        self._files, self._schema = files, schema
        self._shard_bytes, self._splits = shard_bytes, splits
        self._closing = closing
        self._open: dict[str, _DataFile] = {}
        self._numbers: Counter[str] = Counter()

    @classmethod
    @contextmanager
    def begun(
        cls, files: ShardFiles, schema: pa.Schema, shard_bytes: int | None, splits: Sequence[str]
    ) -> Iterator[Self]:
        """Begin the first file, and end all of them; after an error none of those that are open is published."""
        with ExitStack() as closing:
            data = cls(files, schema, shard_bytes, splits, closing)
            data._begin(splits[0])
            yield data
            for split in splits:
                data._end(split)

    def group_bytes(self, usual: int) -> int:
        """Return the bytes of recordings of a row group, of which files have several."""
        return usual if self._shard_bytes is None else max(1, min(usual, self._shard_bytes // GROUPS_A_FILE))

    def write(self, table: pa.Table, split: str) -> None:
        """Write rows as a row group."""
        table = table.select(self._schema.names).cast(self._schema)
        file = self._open.get(split)
        if file and file.num_bytes and file.num_bytes + table.nbytes > (self._shard_bytes or math.inf):
            self._end(split)
            file = None
        file = file or self._begin(split)
        file.writer.write_table(table)
        file.num_bytes += table.nbytes
        self._files.tally.splits[split] += table.num_rows

    def _begin(self, split: str) -> _DataFile:
        folder = f"data/{split}" if len(self._splits) > 1 else "data"
        number = "" if self._shard_bytes is None else f"-{self._numbers[split]:05}"
        closing = self._closing.enter_context(ExitStack())
        scratch = closing.enter_context(
            self._files.file(f"{folder}/{self._files.shard.removesuffix('.parquet')}{number}.parquet")
        )
        writer = closing.enter_context(pq.ParquetWriter(scratch, self._schema, compression="zstd"))
        self._open[split] = _DataFile(scratch, writer, closing)
        self._numbers[split] += 1
        return self._open[split]

    def _end(self, split: str) -> None:
        if file := self._open.pop(split, None):
            file.writer.close()
            self._files.tally.split_bytes[split] += file.scratch.stat().st_size
            file.closing.close()


Stored = Mapping[str, Any]
"""A recording in the layout of `datasets`: its bytes and its path."""
Item = TypeVar("Item")


def in_groups(
    recordings: Iterable[tuple[Item, Stored]], most_bytes: int, most_rows: float = math.inf
) -> Iterator[list[tuple[Item, Stored]]]:
    """Yield rows and their recordings in row groups of a Parquet file, of which one is in memory."""
    group, num_bytes = list[tuple[Item, Stored]](), 0
    for item, audio in recordings:
        group.append((item, audio))
        num_bytes += len(audio["bytes"])
        if num_bytes >= most_bytes or len(group) == most_rows:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def reason_of(error: AudioError | TooLong) -> str:
    """Return the reason why the row of a recording is left out."""
    return error.error_type if isinstance(error, AudioError) else "too_long"


@spec
class Dataset:
    """A folder that `datasets.load_dataset` opens: Parquet files and a card.

    Attributes:
        audio: write the recordings of the source, too.
        split: name of the split.
        shard_bytes: largest number of bytes of a file, which small neighbouring label shards share; None: one file for
            each label shard.
        licence: licence in the card, as the Hugging Face hub names it.
    """

    NAME: ClassVar[str] = "dataset"

    audio: bool = True
    _: KW_ONLY
    split: Split = "train"
    shard_bytes: ShardBytes | None = None
    licence: str | None = None

    def writing(self, source: Source) -> "DatasetFiles":
        """Return the export to such a folder.

        Raises:
            TrustError, PlanError: as `Source.pipeline`, with recordings.
        """
        if self.audio:
            _ = source.pipeline
        return DatasetFiles(source, self)


@dataclass(frozen=True)
class DatasetFiles(Writer):
    """Export of Parquet files for each label shard, and a card."""

    source: Source
    spec: Dataset

    @cached_property
    def columns(self) -> list[str]:
        """Columns of the label shards that are exported."""
        ours = {AUDIO_COLUMN, self.source.pipeline.source.audio} if self.spec.audio else set()
        return [name for name in self.source.labelling.schema.names if name not in ours]

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the exported files: the recordings come after the id."""
        fields = [self.source.labelling.schema.field(name) for name in self.columns]
        audio_field = [pa.field(AUDIO_COLUMN, AUDIO)] if self.spec.audio else []
        return pa.schema([*fields[:1], *audio_field, *fields[1:]])

    def expected_bytes(self, shard: Shard) -> float:
        """Return the bytes of its recordings, or of its label shard."""
        return expected_bytes(shard, PCM_BYTES) if self.spec.audio else shard.num_rows * LABEL_BYTES

    def pack(self, shards: Sequence[Shard], files: ShardFiles) -> None:
        """Write the files of neighbouring label shards."""
        with DataFiles.begun(files, self.schema, self.spec.shard_bytes, [self.spec.split]) as data:
            group_bytes = data.group_bytes(GROUP_BYTES)
            for table in chain.from_iterable(self._tables(shard, files, group_bytes) for shard in shards):
                files.tally.rows += table.num_rows
                files.tally.seconds += sum(seconds or 0.0 for seconds in table.column(SECONDS).to_pylist())
                if table.num_rows:
                    data.write(table, self.spec.split)

    def _tables(self, shard: Shard, files: ShardFiles, group_bytes: int) -> Iterator[pa.Table]:
        if not self.spec.audio:
            yield from ok_rows(self.source.labelling, shard, self.columns, files)
            return
        with Decoder() as decoder:
            channel = self.source.pipeline.decode.channel
            read = Reading(decoder, None if channel == EACH else channel, files, group_bytes)
            for labels, places, recordings in self.source.rows(shard, self.columns, files):
                yield from read(labels, places, recordings)

    def finish(self, destination: Destination, total: Tally) -> int:
        """Write the card, and return 1."""
        return write_card(destination, self.source.labelling, self.spec, self.schema, total, has_audio=self.spec.audio)


@dataclass(frozen=True)
class Reading:
    """Reading of the recordings of label rows, as they are stored."""

    decoder: Decoder
    """Decodes excerpts."""
    channel: Channel | None
    """Channel that excerpts are written with; None: all."""
    files: ShardFiles
    group_bytes: int
    """Bytes of the recordings of a table."""

    def __call__(self, labels: pa.Table, places: Sequence[int], recordings: Recordings) -> Iterator[pa.Table]:
        """Yield label rows with their recordings; rows whose recording cannot be read are left out and counted."""
        labels = labels.unify_dictionaries()
        for group in in_groups(self._rows(places, recordings), self.group_bytes, GROUP_ROWS):
            rows, stored = [row for row, _ in group], [audio for _, audio in group]
            yield labels.take(rows).append_column(AUDIO_COLUMN, pa.array(stored, AUDIO))

    def _rows(self, places: Sequence[int], recordings: Recordings) -> Iterator[tuple[int, Stored]]:
        """Yield the rows that can be read, with their recordings."""
        for row, place in enumerate(places):
            try:
                data, name = self._bytes(recordings, place), recordings.name(place)
            except (AudioError, TooLong) as error:
                self.files.tally.left_out[reason_of(error)] += 1
                continue
            if data is None:
                self.files.tally.left_out["too_large"] += 1
            else:
                yield row, {"bytes": data, "path": name}

    def _bytes(self, recordings: Recordings, place: int) -> bytes | None:
        """Return a recording as it is stored, or its excerpt as FLAC at its own sample rate; None if too large."""
        excerpt = recordings.excerpt(place)
        if excerpt.offset or excerpt.duration is not None:
            header = self.decoder.read_header(excerpt.audio)
            options = DecodeOptions(header.sample_rate, "mean" if self.channel is None else self.channel)
            if self.channel is not None:
                return encode_flac(self.decoder.decode(excerpt, options), header.sample_rate)
            if header.channels > FLAC_CHANNELS:
                raise AudioError(
                    "unsupported_format", f"{header.channels} channels; a FLAC file has at most {FLAC_CHANNELS}"
                )
            each = [self.decoder.decode(replace(excerpt, channel=c), options) for c in range(header.channels)]
            return encode_flac(np.stack(each, axis=1), header.sample_rate)
        recording = recordings.get(place)
        if isinstance(recording, memoryview):
            return bytes(recording) if len(recording) <= MOST_BYTES else None
        num_bytes = recording.seek(0, os.SEEK_END)
        if num_bytes > MOST_BYTES:
            return None
        recording.seek(0, os.SEEK_SET)
        return recording.read(num_bytes)
