"""Export of training clips, cut from recordings at pauses between words or regions of speech."""

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from raysp.audio import Channel, DecodeOptions, TooLong
from raysp.audio.encoding import cut_parts, encode_flac
from raysp.audio.isolation import Decoder
from raysp.corpus.shards import AUDIO, Shard
from raysp.errors import AudioError, PlanError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.ops.recordings import Recordings
from raysp.specs.steps import EACH
from raysp.specs.values import spec
from raysp.text.clipping import Clip
from raysp.verbs.export.cuts import Cuts, RowCuts
from raysp.verbs.export.dataset_card import AUDIO_COLUMN, Split, write_card
from raysp.verbs.export.datasets import Stored, data_path, in_groups, reason_of
from raysp.verbs.export.destination import Destination, ShardFiles, Tally
from raysp.verbs.export.export_rows import Row, id_of, stem_of, to_rows
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
OF_SOURCE = "source_"
"""Prefix of kept columns that have the name of a column of clips, such as the text of the whole recording."""


@spec
class Clips(Cuts):
    """Training clips: Parquet files and a card.

    Attributes:
        column, by, min_seconds, max_seconds, max_pause, padding, min_score: as for `Utterances`.
        sample_rate: sample rate in Hz.
        split: name of the split.
        licence: licence in the card, as the Hugging Face hub names it.
    """

    NAME: ClassVar[str] = "clips"

    _: KW_ONLY
    sample_rate: Annotated[int, Field(ge=1000, le=192_000)] = 16_000
    split: Split = "train"
    licence: str | None = None

    def writing(self, source: Source) -> "ClipFiles":
        """Return the export to clips.

        Raises:
            PlanError: there are neither words nor regions of speech, or they are of each channel; or as
                `Source.pipeline`, like TrustError.
        """
        files = ClipFiles(source.labelling, source, self)
        _ = files.channel, files.cuts.spans, files.schema
        return files


@dataclass(frozen=True)
class ClipFiles:
    """Export of a file of clips for each label shard, and a card."""

    named: ClassVar[None] = None

    labelling: Labelling
    source: Source
    spec: Clips

    @cached_property
    def channel(self) -> Channel:
        """Channel that clips are cut from."""
        channel = self.source.pipeline.decode.channel
        if channel == EACH:
            raise PlanError(
                f"{self.labelling.url}: its rows have words of each channel (Decode(channel='each')), and clips are "
                "cut from one; label one channel by Decode(channel=0) for them"
            )
        return channel

    @cached_property
    def cuts(self) -> RowCuts:
        """Cuts of the rows."""
        return RowCuts(self.labelling, self.spec, self.spec.NAME)

    @cached_property
    def kept(self) -> Mapping[str, str]:
        """Names in clips of the columns of the source that the sink keeps, by their own names."""
        schema, own = self.labelling.schema, {*SCHEMA.names}
        named: dict[str, str] = {}
        for name in (name for name in self.labelling.kept if name in schema.names and name != "id"):
            named[name] = f"{OF_SOURCE}{name}" if name in own else name
        if len({*named.values()} | own) < len(named) + len(own):
            raise PlanError(
                f"{self.labelling.url}: the kept columns {', '.join(named)} have the names of columns of clips also "
                f"with {OF_SOURCE!r} before them; rename one in the source"
            )
        return named

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the files of clips."""
        fields = [self.labelling.schema.field(name).with_name(as_) for name, as_ in self.kept.items()]
        return pa.schema([*SCHEMA, *fields])

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the file of a label shard."""
        with (
            files.file(data_path(shard)) as scratch,
            pq.ParquetWriter(scratch, self.schema, compression="zstd") as writer,
            Decoder() as decoder,
        ):
            for group in in_groups(self._clips(shard, files, _Cutting(self, shard, decoder, files)), GROUP_BYTES):
                table = pa.Table.from_pylist([{**values, AUDIO_COLUMN: audio} for (values, _), audio in group], SCHEMA)
                kept = pa.concat_tables(row for (_, row), _ in group)
                for field in kept.schema:
                    table = table.append_column(field, kept.column(field.name))
                writer.write_table(table.cast(self.schema))

    def _clips(
        self, shard: Shard, files: ShardFiles, cut: "_Cutting"
    ) -> Iterator[tuple[tuple[Values, pa.Table], Stored]]:
        """Yield clips: the values of their columns with the kept ones of their row, and the audio."""
        columns = [*self.cuts.columns, *self.kept]
        for labels, places, recordings in self.source.rows(shard, columns, files):
            kept = labels.select([*self.kept]).rename_columns([*self.kept.values()]).unify_dictionaries()
            for number, (row, place) in enumerate(zip(to_rows(labels), places, strict=True)):
                for values, audio in cut(row, recordings, place):
                    yield (values, kept.slice(number, 1)), audio

    def finish(self, destination: Destination, total: Tally) -> int:
        """Write the card, and return 1."""
        return write_card(destination, self.labelling, self.spec, self.schema, total, has_audio=True)


class _Cutting:
    """Cutting of the recordings of one label shard."""

    def __init__(self, export: ClipFiles, shard: Shard, decoder: Decoder, files: ShardFiles) -> None:
        self.spec = export.spec
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
