"""Export of utterances: lines of a manifest, which name parts of the source's recordings without a copy of audio."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.specs.values import spec
from raysp.text.clipping import Clip
from raysp.text.formats.safe_values import json_line
from raysp.verbs.export.cuts import Cuts, RowCuts, only_channel
from raysp.verbs.export.destination import ShardFiles
from raysp.verbs.export.export_rows import SPEAKER, Row, id_of, kept_names, stem_of
from raysp.verbs.export.shard_export import Writer
from raysp.verbs.export.source_audio import Place, Source, shared_folder

SUFFIX = ".jsonl"
KEYS = (
    *("id", "audio_filepath", "offset", "duration", "text", "score", SPEAKER, "language"),
    *("source_id", "shard", "row"),
)
"""Keys of a line, before the kept columns of the source."""


@spec
class Utterances(Cuts):
    """Manifests of utterances in JSON lines, with NeMo's keys; `Shards` reads them from the same recordings.

    A recording inside of a Parquet, Arrow or tar file is named by its row, "talks.parquet#row=17", with "&column=NAME"
    if its column is not "audio". Recordings of lhotse Shar are refused.

    Attributes:
        column: prefix of the columns of words, regions of speech or turns.
        by: "words" cuts at pauses between words, "sentences" after marks that end sentences, as many as fit,
            "turns" at pauses and where the speaker changes, "speech" between regions of speech. None: "words", or
            "speech" without a column of words.
        min_seconds: shortest clip.
        max_seconds: longest clip.
        max_pause: shortest pause that always ends a clip, in seconds.
        padding: longest silence before the first word of a clip and after its last one, in seconds.
        min_score: least mean probability of a clip's words.
    """

    NAME: ClassVar[str] = "utterances"
    UNIT: ClassVar[str] = "utterance"

    def writing(self, source: Source) -> "UtteranceFiles":
        """Return the export to manifests.

        Raises:
            PlanError: there is nothing to cut by, labels are of each channel, or rows are of Shar; or as
                `Source.pipeline`, like TrustError.
        """
        files = UtteranceFiles(source, self)
        files.check()
        return files


@dataclass(frozen=True)
class UtteranceFiles(Writer):
    """Export of a manifest for each label shard."""

    source: Source
    spec: Utterances

    @cached_property
    def cuts(self) -> RowCuts:
        """Cuts of the rows."""
        return RowCuts(self.source.labelling, self.spec)

    def check(self) -> None:
        """Raise PlanError if rows cannot be cut, or a line cannot name their recordings."""
        _ = only_channel(self.source, "utterances"), self.cuts.spans, self._kept
        self.source.check_places()

    @cached_property
    def audio_root(self) -> str:
        """Folder that holds all recordings, which `Shards(audio_root=...)` has to name; empty without one."""
        shards, kind_of = self.source.labelling.finished_shards, sources.kind_named
        by_path = (self.source.roots[shard.name] for shard in shards)
        holding = (shard.url.rpartition("/")[0] for shard in shards if kind_of(shard.kind).holds_audio)
        return shared_folder([*filter(None, by_path), *holding])

    @cached_property
    def _language(self) -> str | None:
        """Column of the languages: the column of the transcript, else a kept one."""
        names = (f"{self.spec.column}_language", "language")
        return next((name for name in names if name in self.source.labelling.schema.names), None)

    @cached_property
    def _kept(self) -> Mapping[str, str]:
        """Keys of the columns of the source that the sink keeps, by their own names."""
        return kept_names(self.source.labelling, KEYS, self._language)

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the manifest of a label shard."""
        columns = [*self.cuts.columns, *([self._language] if self._language else []), *self._kept]
        with files.file(f"{stem_of(shard)}{SUFFIX}", is_hashed=True) as scratch, scratch.open("wb") as file:
            for row, place in self.source.placed_rows(shard, columns, files):
                file.writelines(line.encode() for line in self._lines(row, place, shard, files))

    def _lines(self, row: Row, place: Place, shard: Shard, files: ShardFiles) -> Iterator[str]:
        """Yield the lines of a row."""
        clips = self.cuts(row, files)
        files.tally.rows += bool(clips)
        files.tally.clips += len(clips)
        files.tally.seconds += sum(clip.seconds for clip in clips)
        for number, clip in enumerate(clips):
            yield json_line(self._values(row, place, shard, clip, number))

    def _values(self, row: Row, place: Place, shard: Shard, clip: Clip, number: int) -> dict[str, object]:
        path, offset = place
        source_id = id_of(row, shard)
        return {
            "id": f"{source_id}-{number:04}",
            "audio_filepath": path,
            "offset": round(offset + clip.start, 6),
            "duration": clip.seconds,
            **({"text": clip.text} if self.cuts.spoken else {}),
            "score": None if clip.score is None else round(clip.score, 6),
            **({SPEAKER: clip.speaker or None} if self.cuts.turns else {}),
            **({"language": row[self._language]} if self._language else {}),
            "source_id": source_id,
            "shard": shard.name,
            "row": row["row"],
            **{key: row[name] for name, key in self._kept.items()},
        }
