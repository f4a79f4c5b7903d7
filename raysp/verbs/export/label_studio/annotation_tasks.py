"""Export to tasks of Label Studio, whose predictions people correct; `raysp.corrections` reads them back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from string import Formatter
from typing import ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from raysp import bounds
from raysp.columns import SECONDS
from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.errors import PlanError
from raysp.sink.run_record import objects_in
from raysp.specs.values import spec
from raysp.text.clipping import Clip
from raysp.text.formats.safe_values import json_line, place_name
from raysp.verbs.export.cuts import Cuts, RowCuts
from raysp.verbs.export.destination import Destination, ShardFiles, Tally
from raysp.verbs.export.export_rows import SPEECH, Row, find_spans, id_of, is_by_channel, seconds_of, stem_of
from raysp.verbs.export.shard_export import Writer
from raysp.verbs.export.source_audio import Place, Source

SUFFIX = ".json"
CONFIG = "labeling_config.xml"
"""File of the labelling interface, which a project of Label Studio takes."""
AUDIO, LABELS, TEXT = "audio", "labels", "transcription"
"""Names of the controls of the interface."""
FIELDS = ("path", "id", "shard", "row")
"""Fields of a template of urls."""


@spec
class LabelStudio(Cuts):
    """Tasks of Label Studio: a row each, with its labels as a prediction, and the labelling interface.

    Rows with words, turns or regions of speech have regions with a label, the speaker or "speech", and the text of
    each; other rows one text. Rows are cut as by `Utterances`.

    Attributes:
        column, by, min_seconds, max_seconds, max_pause, padding, min_score: as for `Utterances`.
        audio: url of a recording for Label Studio, with {path}, {id}, {shard} and {row}: of recordings in files
            "/data/local-files/?d={path}" for example, of recordings inside of shards the place of their copies.
    """

    NAME: ClassVar[str] = "labelstudio"
    UNIT: ClassVar[str] = "region"

    _: KW_ONLY
    min_seconds: float = 0.0
    max_seconds: float = 30.0
    audio: str = "{path}"

    def __post_init__(self) -> None:
        """Check the fields of the template, and the lengths."""
        super().__post_init__()
        fields = [field for _, field, _, _ in Formatter().parse(self.audio) if field is not None]
        if not fields or {*fields} - {*FIELDS}:
            expected = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise ValueError(f"audio={self.audio!r}: expected a url with fields of {expected}")

    def writing(self, source: Source) -> "Tasks":
        """Return the export to tasks.

        Raises:
            PlanError: there are no texts or regions, they are of each channel, or recordings have no url; or as
                `Source.pipeline`, like TrustError.
        """
        tasks = Tasks(source, self)
        tasks.check()
        return tasks


@dataclass(frozen=True)
class Tasks(Writer):
    """Export of a list of tasks for each label shard."""

    source: Source
    spec: LabelStudio

    @cached_property
    def cuts(self) -> RowCuts | None:
        """Cuts of rows into regions; None for texts without times."""
        cuts = RowCuts(self.source.labelling, self.spec)
        kinds = (f"{self.spec.column}_words", f"{self.spec.column}_speech", "pred_speech")
        return cuts if self.spec.by is not None or find_spans(self.source.labelling.schema, *kinds) else None

    @cached_property
    def _columns(self) -> list[str]:
        """Columns that are read."""
        names = (f"{self.spec.column}_text", f"{self.spec.column}_score", *self._kept)
        of_regions = self.cuts.columns if self.cuts else []
        return [*dict.fromkeys([*(name for name in names if name in self.source.labelling.schema.names), *of_regions])]

    @cached_property
    def _kept(self) -> list[str]:
        reserved = (AUDIO, "id", "text", "audio_filepath", "offset", "duration", "shard", "row")
        return [name for name in self.source.labelling.kept if name not in reserved]

    @cached_property
    def _model(self) -> str:
        """Version of the predictions: the checkpoint, and the fingerprint of the labels."""
        steps = [step for step in self.source.labelling.record.steps if [*objects_in(step, "outputs")]]
        checkpoint = place_name(str(steps[0].get("checkpoint", ""))) if steps else ""
        return f"{checkpoint} {self.source.labelling.record.fingerprint[:8]}".strip()

    def check(self) -> None:
        """Raise PlanError if rows have nothing to correct, or recordings no url."""
        url, text = self.source.labelling.url, f"{self.spec.column}_text"
        if not self.cuts and text not in self.source.labelling.schema.names:
            raise PlanError(f"{url}: the format labelstudio needs a column {text}. Ask for it with Transcript()")
        if by_channel := [name for name in self._columns if is_by_channel(self.source.labelling.schema, name)]:
            raise PlanError(
                f"{url}: column {by_channel[0]!r} has an entry for each channel, and a task is of one; label one "
                "channel by Decode(channel=0)"
            )
        self.source.check_places()
        shards = self.source.labelling.finished_shards
        if self._needs_paths and any(sources.kind_named(shard.kind).holds_audio for shard in shards):
            raise PlanError(
                f"{url}: its recordings are inside of shards, where Label Studio cannot play them; export them with "
                "--to clips or by a program, and name the urls of the copies, as by "
                "--set 'to.audio=https://HOST/{id}.wav'"
            )

    @property
    def _needs_paths(self) -> bool:
        return "{path}" in self.spec.audio

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the tasks of a label shard."""
        with files.file(f"{stem_of(shard)}{SUFFIX}", is_hashed=True) as scratch, scratch.open("wb") as file:
            for number, task in enumerate(self._tasks(shard, files)):
                file.write((b",\n" if number else b"[\n") + json_line(task).rstrip("\n").encode())
            file.write(b"\n]\n" if file.tell() else b"[]\n")

    def _tasks(self, shard: Shard, files: ShardFiles) -> Iterator[dict[str, object]]:
        for row, place in self.source.placed_rows(shard, self._columns, files):
            files.tally.rows += 1
            files.tally.seconds += seconds_of(row)
            yield self._task(row, place, shard, self.cuts(row, files) if self.cuts else None)

    def _task(self, row: Row, place: Place, shard: Shard, clips: Sequence[Clip] | None) -> dict[str, object]:
        path, offset = place
        text, id_ = row.get(f"{self.spec.column}_text"), id_of(row, shard)
        if clips is None:
            results = [_result(TEXT, "textarea", {"text": [text]}, "text")] if text else []
        else:
            # A recording that Label Studio plays from its file begins before the row.
            shift = offset if self._needs_paths else 0.0
            results = [result for number, clip in enumerate(clips) for result in self._region(clip, number, shift)]
        score = row.get(f"{self.spec.column}_score")
        return {
            "data": {
                AUDIO: self._audio(path=path, id=id_, shard=stem_of(shard), row=int(str(row["row"]))),
                "id": id_,
                "text": text,
                "audio_filepath": path,
                "offset": offset,
                "duration": row[SECONDS],
                "shard": shard.name,
                "row": row["row"],
                **{name: row[name] for name in self._kept},
            },
            "predictions": [
                {
                    "model_version": self._model,
                    **({"score": round(math.exp(score), 6)} if isinstance(score, float) else {}),
                    "result": results,
                }
            ],
        }

    def _audio(self, **fields: str | int) -> str:
        """Return the url of a recording; texts inside of a template are percent-encoded."""
        if self.spec.audio == "{path}":
            return str(fields["path"])
        encoded = {name: quote(text, ":/") if isinstance(text, str) else text for name, text in fields.items()}
        return self.spec.audio.format(**encoded)

    def _region(self, clip: Clip, number: int, shift: float) -> Iterator[dict[str, object]]:
        """Yield the results of a region: its label, and its text."""
        place = {"start": round(clip.start + shift, 3), "end": round(clip.end + shift, 3), "channel": 0}
        name = f"region{number:04}"
        yield _result(LABELS, "labels", {**place, "labels": [clip.speaker or SPEECH]}, name, clip.score)
        if clip.text:
            yield _result(TEXT, "textarea", {**place, "text": [clip.text]}, name)

    def finish(self, destination: Destination, total: Tally) -> int:
        """Write the labelling interface with the labels of all tasks, and return 1."""
        labels = {SPEECH} if self.cuts else set[str]()
        for shard in self.source.labelling.finished_shards if self.cuts else ():
            lines = destination.store.read(f"{stem_of(shard)}{SUFFIX}").splitlines()[1:-1]
            tasks = (bounds.parse_json(line.rstrip(b",")) for line in lines)
            results = (result for task in tasks for result in task["predictions"][0]["result"])
            labels.update(label for result in results for label in result["value"].get("labels", ()))
        with destination.whole() as files, files.file(CONFIG, is_hashed=True) as scratch:
            scratch.write_text(_config(sorted(labels)), encoding="utf-8")
        return 1


def _result(
    control: str, kind: str, value: dict[str, object], name: str, score: float | None = None
) -> dict[str, object]:
    result: dict[str, object] = {"id": name, "from_name": control, "to_name": AUDIO, "type": kind, "value": value}
    return result if score is None else {**result, "score": round(score, 6)}


def _config(labels: Sequence[str]) -> str:
    """Return the labelling interface: regions with a text each if there are labels, else one text."""
    of_regions = "".join(f"    <Label value={quoteattr(label)}/>\n" for label in labels)
    regions = f'  <Labels name="{LABELS}" toName="{AUDIO}">\n{of_regions}  </Labels>\n' if labels else ""
    each = ' perRegion="true"' if labels else ""
    return (
        f'<View>\n{regions}  <Audio name="{AUDIO}" value="${AUDIO}"/>\n'
        f'  <TextArea name="{TEXT}" toName="{AUDIO}"{each} rows="3" editable="true" maxSubmissions="1"/>\n</View>\n'
    )
