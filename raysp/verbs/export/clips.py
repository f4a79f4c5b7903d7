"""Export of training clips, cut from recordings at pauses between words or regions of speech."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from itertools import accumulate, chain
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import Field

from raysp.audio import Channel, DecodeOptions, TooLong
from raysp.audio.encoding import cut_parts, encode_flac
from raysp.audio.isolation import Decoder
from raysp.corpus.shards import AUDIO, Shard
from raysp.errors import AudioError, PlanError
from raysp.ops.recordings import Recordings
from raysp.specs.values import spec
from raysp.text.clipping import Clip
from raysp.verbs.export.cuts import Cuts, RowCuts, only_channel
from raysp.verbs.export.dataset_card import AUDIO_COLUMN, Shares, Split, write_card
from raysp.verbs.export.datasets import DataFiles, ShardBytes, Stored, expected_bytes, in_groups, reason_of
from raysp.verbs.export.destination import Destination, ShardFiles, Tally
from raysp.verbs.export.export_rows import Row, id_of, kept_names, stem_of, to_rows
from raysp.verbs.export.shard_export import Writer
from raysp.verbs.export.source_audio import Source

GROUP_BYTES = 32 * 1024 * 1024
"""Bytes of the recordings of a row group."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        (AUDIO_COLUMN, AUDIO),
        ("text", pa.string()),
        ("source_id", pa.string()),
        ("row", pa.int64()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("seconds", pa.float64()),
        ("score", pa.float32()),
    ]
)
"""Columns of clips as Parquet, before the kept columns of the source."""
Values = dict[str, str | int | float | None]
"""Values of the columns of a clip besides the audio and the kept ones."""


@spec
class Clips(Cuts):
    """Training clips: Parquet files and a card.

    Attributes:
        column, by, min_seconds, max_seconds, max_pause, padding, min_score: as for `Utterances`.
        sample_rate: sample rate in Hz.
        split: name of the split, or shares of several, such as {"train": 0.98, "dev": 0.01, "test": 0.01}. The split
            of a clip is decided by a hash of its speaker, so that no speaker is in two splits.
        speaker: kept column of the source with the speaker; without one, or where it is null, the clips of a recording
            are in one split.
        shard_bytes: largest number of bytes of a file, which small neighbouring label shards share; None: one file for
            each label shard and split.
        licence: licence in the card, as the Hugging Face hub names it.
    """

    NAME: ClassVar[str] = "clips"

    _: KW_ONLY
    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    split: Split | Shares = "train"
    speaker: str | None = None
    shard_bytes: ShardBytes | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        """Check the cuts and the shares."""
        super().__post_init__()
        if not isinstance(self.split, str) and not math.isclose(sum(self.split.values()), 1, abs_tol=1e-6):
            raise ValueError(f"split: the shares add up to {sum(self.split.values()):g}; expected 1")
        if len({name.casefold() for name in self.splits}) < len(self.splits):
            raise ValueError(f"split: {', '.join(self.splits)} have one folder where letter case is ignored")
        if isinstance(self.split, str) and self.speaker is not None:
            raise ValueError(f"speaker={self.speaker!r}: has no effect, since split={self.split!r} names one split")

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return [self.split] if isinstance(self.split, str) else [*self.split]

    def split_of(self, key: str) -> str:
        """Return the split of all clips with a key, the speaker or the recording."""
        if isinstance(self.split, str):
            return self.split
        digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        ends = zip(self.split, accumulate(self.split.values()), strict=True)
        return next((name for name, end in ends if place < end), self.splits[-1])

    def writing(self, source: Source) -> "ClipFiles":
        """Return the export to clips.

        Raises:
            PlanError: there are neither words nor regions of speech, or they are of each channel; or as
                `Source.pipeline`, like TrustError.
        """
        files = ClipFiles(source, self)
        _ = files.channel, files.cuts.spans, files.schema, files.speaker
        return files


@dataclass(frozen=True)
class ClipFiles(Writer):
    """Export of files of clips for each label shard, and a card."""

    source: Source
    spec: Clips

    @cached_property
    def channel(self) -> Channel:
        """Channel that clips are cut from."""
        return only_channel(self.source, "clips")

    @cached_property
    def cuts(self) -> RowCuts:
        """Cuts of the rows."""
        return RowCuts(self.source.labelling, self.spec)

    @cached_property
    def kept(self) -> Mapping[str, str]:
        """Names in clips of the columns of the source that the sink keeps, by their own names."""
        return kept_names(self.source.labelling, SCHEMA.names)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the files of clips."""
        fields = [self.source.labelling.schema.field(name).with_name(as_) for name, as_ in self.kept.items()]
        return pa.schema([*SCHEMA, *fields])

    @cached_property
    def speaker(self) -> str | None:
        """Name in clips of the column of speakers."""
        if self.spec.speaker is None:
            return None
        if self.spec.speaker not in self.kept:
            raise PlanError(
                f"{self.source.labelling.url}: speaker={self.spec.speaker!r} is no column of the source that its label "
                f"shards keep, which are {', '.join(self.kept) or 'none'}. Label with "
                f"Parquet(keep=[{self.spec.speaker!r}]); the columns of utterances are those that the first sink keeps"
            )
        return self.kept[self.spec.speaker]

    def expected_bytes(self, shard: Shard) -> float:
        """Return the bytes of its recordings as FLAC, half of 16 bits a sample, or as they are stored."""
        return expected_bytes(shard, self.spec.sample_rate)

    def pack(self, shards: Sequence[Shard], files: ShardFiles) -> None:
        """Write the files of neighbouring label shards."""
        with DataFiles.begun(files, self.schema, self.spec.shard_bytes, self.spec.splits) as data, Decoder() as decoder:
            cut = partial(_Cutting, self, decoder=decoder, files=files)
            clips = chain.from_iterable(self._clips(shard, files, cut(shard)) for shard in shards)
            for group in in_groups(clips, data.group_bytes(GROUP_BYTES)):
                table = pa.Table.from_pylist([{**clip.values, AUDIO_COLUMN: audio} for clip, audio in group], SCHEMA)
                kept = pa.concat_tables(clip.kept for clip, _ in group)
                for field in kept.schema:
                    table = table.append_column(field, kept.column(field.name))
                splits = [clip.split for clip, _ in group]
                for split in (name for name in self.spec.splits if name in splits):
                    of_split = pa.array([name == split for name in splits])
                    data.write(table.filter(of_split) if len({*splits}) > 1 else table, split)

    def _clips(self, shard: Shard, files: ShardFiles, cut: "_Cutting") -> Iterator[tuple["_Clip", Stored]]:
        """Yield clips with their audio."""
        columns = [*self.cuts.columns, *self.kept]
        for labels, places, recordings in self.source.rows(shard, columns, files):
            kept = labels.select([*self.kept]).rename_columns([*self.kept.values()]).unify_dictionaries()
            speakers = kept.column(self.speaker).to_pylist() if self.speaker else [None] * len(places)
            for number, (row, place, speaker) in enumerate(zip(to_rows(labels), places, speakers, strict=True)):
                split = self.spec.split_of(
                    _recording(shard, row, recordings, place) if speaker is None else str(speaker)
                )
                for values, audio in cut(row, recordings, place):
                    yield _Clip(values, kept.slice(number, 1), split), audio

    def finish(self, destination: Destination, total: Tally) -> int:
        """Write the card, and return 1; splits without a clip are counted as 0."""
        total.splits = Counter({name: total.splits[name] for name in self.spec.splits})
        return write_card(destination, self.source.labelling, self.spec, self.schema, total, has_audio=True)


@dataclass(frozen=True)
class _Clip:
    values: Values
    kept: pa.Table
    """Kept columns of its row."""
    split: str


def _recording(shard: Shard, row: Row, recordings: Recordings, place: int) -> str:
    """Return an identifier of the recording of a row; rows that are parts of one file share it."""
    path = recordings.path(place) if recordings.offsets else None
    return path or f"{shard.name}\0{row['row']}"


class _Cutting:
    """Cutting of the recordings of one label shard."""

    def __init__(self, export: ClipFiles, shard: Shard, decoder: Decoder, files: ShardFiles) -> None:
        self.cuts = export.cuts
        self.shard, self.decoder, self.files = shard, decoder, files
        self.rate = export.spec.sample_rate
        self.decode = DecodeOptions(self.rate, export.channel, export.source.pipeline.decode.max_seconds)
        self.key = stem_of(shard).replace("/", "-").replace(".", "-")

    def __call__(self, row: Row, recordings: Recordings, place: int) -> Iterator[tuple[Values, Stored]]:
        """Yield the clips of a row; the recording is decoded in parts up to the end of the last clip."""
        tally, written = self.files.tally, 0
        if not (clips := self.cuts(row, self.files)):
            return
        parts = [(round(clip.start * self.rate), round(clip.end * self.rate)) for clip in clips]
        try:
            chunks = self.decoder.decode_chunks(recordings.excerpt(place), self.decode)
            for number, (clip, samples) in enumerate(zip(clips, cut_parts(chunks, parts), strict=True)):
                if len(samples):
                    yield self._clip(row, clip, number, encode_flac(samples, self.rate))
                    written += 1
                    tally.seconds += clip.seconds
            self.decoder.cancel()
        except (AudioError, TooLong) as error:
            tally.left_out[reason_of(error)] += 1
        tally.rows += bool(written)
        tally.clips += written

    def _clip(self, row: Row, clip: Clip, number: int, audio: bytes) -> tuple[Values, Stored]:
        source_id, place = id_of(row, self.shard), int(str(row["row"]))
        values: Values = {
            "id": f"{source_id}-{number:04}",
            "text": clip.text if self.cuts.spoken else None,
            "source_id": source_id,
            "row": place,
            "start": clip.start,
            "end": clip.end,
            "seconds": clip.seconds,
            "score": clip.score,
        }
        return values, {"bytes": audio, "path": f"{self.key}-{place:08}-{number:04}.flac"}
