"""Export to a folder that `datasets.load_dataset` opens: labels, with the recordings of the source."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysp.audio import Channel, DecodeOptions, TooLong
from raysp.audio.encoding import encode_flac
from raysp.audio.isolation import Decoder
from raysp.columns import SECONDS
from raysp.corpus.shards import AUDIO, Shard
from raysp.errors import AudioError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.ops.recordings import Recordings
from raysp.specs.steps import EACH
from raysp.specs.values import spec
from raysp.verbs.export.dataset_card import AUDIO_COLUMN, Split, write_card
from raysp.verbs.export.destination import Destination, ShardFiles, Tally
from raysp.verbs.export.export_rows import ok_rows, stem_of
from raysp.verbs.export.source_audio import Source

GROUP_BYTES = 64 * 1024 * 1024
"""Bytes of recordings of a row group, unless one row has more."""
GROUP_ROWS = 1000
MOST_BYTES = 2**31 - 1
"""Of a value of a Parquet file of the layout of `datasets`."""
FLAC_CHANNELS = 8
"""Largest number of channels of a FLAC file."""


def data_path(shard: Shard) -> str:
    """Return the path of the exported file of a label shard."""
    return f"data/{stem_of(shard)}.parquet"


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
        licence: licence in the card, as the Hugging Face hub names it.
    """

    NAME: ClassVar[str] = "dataset"

    audio: bool = True
    _: KW_ONLY
    split: Split = "train"
    licence: str | None = None

    def writing(self, source: Source) -> "DatasetFiles":
        """Return the export to such a folder.

        Raises:
            TrustError, PlanError: as `Source.pipeline`, with recordings.
        """
        if self.audio:
            _ = source.pipeline
        return DatasetFiles(source.labelling, source, self)


@dataclass(frozen=True)
class DatasetFiles:
    """Export of a Parquet file for each label shard, and a card."""

    named: ClassVar[None] = None

    labelling: Labelling
    source: Source
    spec: Dataset

    @cached_property
    def columns(self) -> list[str]:
        """Columns of the label shards that are exported."""
        ours = {AUDIO_COLUMN, self.source.pipeline.source.audio} if self.spec.audio else set()
        return [name for name in self.labelling.schema.names if name not in ours]

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the exported files: the recordings come after the id."""
        fields = [self.labelling.schema.field(name) for name in self.columns]
        audio_field = [pa.field(AUDIO_COLUMN, AUDIO)] if self.spec.audio else []
        return pa.schema([*fields[:1], *audio_field, *fields[1:]])

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the file of a label shard."""
        with files.file(data_path(shard)) as scratch, pq.ParquetWriter(scratch, self.schema, compression="zstd") as new:
            for table in self._tables(shard, files):
                files.tally.rows += table.num_rows
                files.tally.seconds += sum(seconds or 0.0 for seconds in table.column(SECONDS).to_pylist())
                if table.num_rows:
                    new.write_table(table.select(self.schema.names).cast(self.schema))

    def _tables(self, shard: Shard, files: ShardFiles) -> Iterator[pa.Table]:
        if not self.spec.audio:
            yield from ok_rows(self.labelling, shard, self.columns, files)
            return
        with Decoder() as decoder:
            channel = self.source.pipeline.decode.channel
            read = Reading(decoder, None if channel == EACH else channel, files)
            for labels, places, recordings in self.source.rows(shard, self.columns, files):
                yield from read(labels, places, recordings)

    def finish(self, destination: Destination, total: Tally) -> int:
        """Write the card, and return 1."""
        return write_card(destination, self.labelling, self.spec, self.schema, total, has_audio=self.spec.audio)


@dataclass(frozen=True)
class Reading:
    """Reading of the recordings of label rows, as they are stored."""

    decoder: Decoder
    """Decodes excerpts."""
    channel: Channel | None
    """Channel that excerpts are written with; None: all."""
    files: ShardFiles

    def __call__(self, labels: pa.Table, places: Sequence[int], recordings: Recordings) -> Iterator[pa.Table]:
        """Yield label rows with their recordings; rows whose recording cannot be read are left out and counted."""
        labels = labels.unify_dictionaries()
        for group in in_groups(self._rows(places, recordings), GROUP_BYTES, GROUP_ROWS):
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
