"""Export of a sink: the options are checked, then its label shards are written one after the other."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, cast

from raysp.corpus.shards import Shard
from raysp.errors import PlanError, RunError, SpecError, StoreError, refuse_unused
from raysp.labelling.finished.destinations import identity_of, refuse_overlap
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.planning.trust import open_recorded
from raysp.specs.pipeline import Pipeline
from raysp.specs.values import JsonValue
from raysp.storage.options import GivenOptions
from raysp.storage.store import Entry, Store, scheme_of
from raysp.storage.stores import open_store
from raysp.verbs.export import text_files
from raysp.verbs.export.beside_recordings import open_beside
from raysp.verbs.export.clips import ClipFiles
from raysp.verbs.export.datasets import DatasetFiles
from raysp.verbs.export.destination import Destination, ShardFiles, ShardMark
from raysp.verbs.export.export_formats import refuse_beside, settled
from raysp.verbs.export.export_result import Export
from raysp.verbs.export.naming import Named, beside_names, row_names
from raysp.verbs.export.source_audio import Source
from raysp.words import listed

WRITER_VERSION = 3
"""Version of the content that formats write; a higher one makes exports of earlier versions other exports."""
Format = Literal["srt", "vtt", "ctm", "textgrid", "rttm", "jsonl", "csv", "nemo", "dataset", "clips"]


class Writing(Protocol):
    """Export of label shards to one format."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of all files."""
        ...

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the files of a label shard."""
        ...

    def finish(self, destination: Destination, marks: Sequence[ShardMark]) -> int:
        """Write the files of the whole export, and return their number less that of parts."""
        ...


def export(
    sink: str,
    storage_options: GivenOptions | None = None,
    *,
    to: Format,
    dest: str | Store | None = None,
    beside: bool = False,
    dest_options: GivenOptions | None = None,
    column: str | None = None,
    max_chars: int | None = None,
    max_lines: int | None = None,
    max_chars_per_second: float | None = None,
    min_gap_seconds: float | None = None,
    language: Literal["de", "en", "es", "fr", "it"] | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    min_score: float | None = None,
    names: Literal["id", "path"] | None = None,
    rows: Literal["ok", "all"] | None = None,
    sample_rate: int | None = None,
    audio: bool | None = None,
    one_file: bool | None = None,
    split: str | None = None,
    licence: str | None = None,
    pipeline: Pipeline | None = None,
    trust: bool = False,
    restart: bool = False,
    on_shard: Callable[[int, int], None] | None = None,
) -> Export:
    """Write the finished label shards of a sink in a format that other tools read.

    Rows that are not ok are left out and counted. The same call again goes on: label shards that are there completely,
    made from the same labels with the same options, are skipped, and a killed export writes the same files. Options
    that are None have the default of the format; options of other formats are refused.

    Args:
        sink: url of the sink.
        storage_options: options to reach it; None: those of `pipeline`, or with `trust` the recorded ones.
        to: the format.
        dest: url of a new or empty folder, or of an earlier export.
        beside: for srt and vtt, instead of `dest`: write `talk.srt` beside `talk.mp4` in the folder of recordings that
            is the source. Files that no export wrote, or that were edited since, are kept and counted.
        dest_options: options to reach it; None: those of the sink if both urls have the same scheme.
        column: prefix of the exported columns, such as "aligned"; for rttm also a whole name. Default "pred".
        max_chars: for srt and vtt: characters of a line, 42.
        max_lines: for srt and vtt: lines of a cue, 2.
        max_chars_per_second: for srt and vtt: reading speed, 17. Cues are shown longer than spoken if there is time.
        min_gap_seconds: for srt and vtt: time between cues, 0.083.
        language: for srt and vtt: language of the texts. Lines then break before its conjunctions and prepositions, and
            not behind its articles.
        min_seconds: for srt and vtt: shortest display of a cue, 0.833; for clips: shortest clip, 1.
        max_seconds: for srt and vtt: longest display of a cue, 7; for clips: longest clip, 20.
        min_score: for clips: least mean probability of a clip's words.
        names: for srt, vtt and textgrid: "path" names files as their recordings, "id" by the id of the row in a folder
            for each label shard. Default: "path" if rows were read by path or from tar files, and the source can be
            read; the result has the reason if not.
        rows: for jsonl and csv: "all" writes rows that are not ok too, with `status`, `error_type` and `error_message`;
            default "ok".
        sample_rate: for clips: sample rate in Hz, 16000.
        audio: for dataset: with the recordings; for nemo: with the paths of recordings that were read by path.
        one_file: for ctm, rttm, jsonl, csv and nemo: one file for all label shards.
        split: for dataset and clips: name of the split, "train".
        licence: for dataset and clips: licence in the card, as the Hugging Face hub names it.
        pipeline: pipeline that made the labels, from whose source recordings are read.
        trust: use the recorded pipeline and storage options.
        restart: remove another export that `dest` holds.
        on_shard: called after each label shard with the number of those done, and of all.

    Raises:
        SpecError: an option is invalid for any data.
        PlanError: there is no sink with finished label shards, it lacks a column, or `dest` holds something else.
        TrustError: recordings are needed, without `pipeline` or `trust`, or shards are outside the pipeline's source.
        ShardError: a shard changed since it was labelled, or cannot be read.
        StoreError: a folder cannot be read or written, before any file is.
        RunError: the same during the export; finished files are kept.
    """
    options = settled(
        to,
        {
            "column": column,
            "max_chars": max_chars,
            "max_lines": max_lines,
            "max_chars_per_second": max_chars_per_second,
            "min_gap_seconds": min_gap_seconds,
            "language": language,
            "min_seconds": min_seconds,
            "max_seconds": max_seconds,
            "min_score": min_score,
            "names": names,
            "rows": rows,
            "sample_rate": sample_rate,
            "audio": audio,
            "one_file": one_file,
            "split": split,
            "licence": licence,
        },
    )
    _check_place(to, dest, dest_options, beside=beside, names=names)
    opened, record = open_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    labelling = Labelling.of(opened, record)
    if not labelling.done:
        reason = listed([*labelling.foreign.values()], 1) or "`raysp status` shows its progress"
        raise PlanError(f"{labelling.url}: has no finished label shard; {reason}")
    source = Source(labelling, storage_options, pipeline, trust=trust)
    if to == "nemo" and audio and not source.has_paths():
        why = "it writes paths of recordings, and no row was read by path; leave it out, and audio_filepath is the id"
        refuse_unused({"audio": audio}, why)
    recordings = open_beside(labelling, source, to) if beside else None
    named = _named(labelling, source, to, options, beside=beside)
    options |= {"names": named.kind} if named else {}
    writing = _writing(labelling, source, named, to, options)
    reached_by = pipeline.sink.storage_options if storage_options is None and pipeline else storage_options
    destination = recordings or _destination(labelling, cast("str | Store", dest), dest_options, sink, reached_by)
    destination.begin(_record(labelling, to, options, writing), restart=restart)
    try:
        return _run(labelling, to, writing, named, destination, on_shard)
    except StoreError as error:
        raise RunError(f"{error}; finished files are kept: run the same export again to go on") from error


def _check_place(
    to: str, dest: str | Store | None, dest_options: GivenOptions | None, *, beside: bool, names: str | None
) -> None:
    """Raise SpecError unless there is one place for the files."""
    if beside:
        refuse_beside(to, names)
        refuse_unused({"dest": dest, "dest_options": dest_options}, "beside=True writes beside the recordings")
    elif dest is None:
        raise SpecError(
            "export: found no destination; give DEST (dest=), or for subtitles beside the recordings --beside "
            "(beside=True)"
        )


def _named(
    labelling: Labelling, source: Source, to: str, options: Mapping[str, JsonValue], *, beside: bool
) -> Named | None:
    """Return the names of the files of rows; None in formats without such files."""
    if beside:
        return beside_names(labelling, source, to)
    return row_names(labelling, source, to, options["names"]) if "names" in options else None


def _destination(
    labelling: Labelling,
    dest: str | Store,
    dest_options: GivenOptions | None,
    sink: str,
    storage_options: GivenOptions | None,
) -> Destination:
    """Open a folder of its own as a destination.

    Raises:
        PlanError: it is inside the sink, or the sink is inside it.
    """
    if isinstance(dest, str):
        is_same = scheme_of(dest) == scheme_of(sink)
        store = open_store(dest, storage_options if dest_options is None and is_same else dest_options)
    else:
        refuse_unused({"dest_options": dest_options}, "dest is an open store; leave them out")
        store = dest
    refuse_overlap(labelling.store, store)
    return Destination(store)


def _record(labelling: Labelling, to: str, options: Mapping[str, JsonValue], writing: Writing) -> dict[str, JsonValue]:
    """Return the identity of an export."""
    return {
        "to": to,
        "options": dict(options),
        "sink": labelling.url,
        "fingerprint": labelling.record.fingerprint,
        "files": list(writing.suffixes),
        "writer_version": WRITER_VERSION,
    }


def _writing(
    labelling: Labelling, source: Source, named: Named | None, to: str, options: Mapping[str, JsonValue]
) -> Writing:
    """Return the export to a format.

    Raises:
        PlanError, TrustError: the sink lacks what the format needs.
    """
    if named:
        write = text_files.text_grids if to == "textgrid" else text_files.subtitles
        return write(labelling, named.names, to, options)
    if to == "ctm":
        return text_files.word_lines(labelling, to, options)
    if to == "rttm":
        return text_files.speaker_lines(labelling, to, options)
    if to == "jsonl":
        return text_files.json_rows(labelling, to, options)
    if to == "csv":
        return text_files.table_rows(labelling, to, options)
    if to == "dataset":
        return DatasetFiles(labelling, source, options).checked()
    if to == "clips":
        return ClipFiles(labelling, source, options).checked()
    if options["audio"]:
        source.check_paths()
    return text_files.manifest_lines(labelling, options, source.paths if options["audio"] else lambda shard: {})


def _run(
    labelling: Labelling,
    to: str,
    writing: Writing,
    named: Named | None,
    destination: Destination,
    on_shard: Callable[[int, int], None] | None,
) -> Export:
    """Write the label shards that the destination lacks."""
    versions = {entry.path: entry for entry in labelling.store.list() if entry.path in labelling.done}
    marks: list[ShardMark] = []
    before = 0
    for name in (name for name in labelling.shards if name in versions):
        shard = labelling.shards[name]
        identity = _identity(shard, versions[name], named.names.digest(shard) if named else "")
        mark = destination.done(name, identity)
        before += mark is not None
        marks.append(mark or _write(writing, shard, identity, destination))
        if on_shard:
            on_shard(len(marks), len(versions))
    others = writing.finish(destination, marks)
    return _result(labelling, to, named, destination, marks, before, others)


def _identity(shard: Shard, labels: Entry, names: str) -> str:
    return identity_of(shard.input_id, labels.num_bytes, labels.version, *([names] if names else []))


def _write(writing: Writing, shard: Shard, identity: str, destination: Destination) -> ShardMark:
    files = destination.files_of(shard.name)
    writing(shard, files)
    mark = files.mark(identity)
    destination.finish(mark)
    return mark


def _result(
    labelling: Labelling,
    to: str,
    named: Named | None,
    destination: Destination,
    marks: Sequence[ShardMark],
    before: int,
    others: int,
) -> Export:
    left_out: Counter[str] = Counter()
    for mark in marks:
        left_out.update(mark.left_out)
    kept = [*destination.kept, *(path for mark in marks for path in mark.kept)]
    return Export(
        sink=labelling.url,
        dest=destination.url,
        to=to,
        shards=len(marks),
        shards_before=before,
        unfinished=labelling.unfinished,
        foreign=labelling.foreign,
        rows=sum(mark.rows for mark in marks),
        clips=sum(mark.clips for mark in marks) if to == "clips" else None,
        files=sum(mark.num_files for mark in marks) + others,
        num_bytes=sum(mark.num_bytes for mark in marks),
        seconds=round(sum(mark.seconds for mark in marks), 3),
        left_out=dict(left_out.most_common()),
        untimed=sum(mark.untimed for mark in marks),
        without_reference=sum(mark.without_reference for mark in marks),
        names=named.kind if named else None,
        not_by_path=named.not_by_path if named else "",
        kept=len(kept),
        first_kept=next(iter(kept), ""),
        rewritten=len(destination.lost),
        first_rewritten=next(iter(destination.lost), ""),
    )
