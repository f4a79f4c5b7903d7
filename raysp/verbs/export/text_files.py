"""Export to formats of text: a file a row, or a file a label shard."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK, SECONDS, STATUS
from raysp.corpus.shards import Shard
from raysp.errors import PlanError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.specs.values import JsonValue
from raysp.text.formats.annotations import LEAST_SECONDS, ctm, rttm, textgrid
from raysp.text.formats.cues import Rules, cues_of, cues_without_times, words_over
from raysp.text.formats.safe_values import csv_line, json_line
from raysp.text.formats.subtitles import srt, vtt, with_names
from raysp.text.times import Span
from raysp.verbs.export.destination import PARTS, Destination, ShardFiles, ShardMark
from raysp.verbs.export.export_formats import ALL, suffix_of
from raysp.verbs.export.export_rows import (
    Row,
    by_channel,
    every_row,
    find_spans,
    id_of,
    is_by_channel,
    missing,
    need_spans,
    ok_rows,
    seconds_of,
    spans_of,
    stem_of,
    to_rows,
)
from raysp.verbs.export.row_names import RowNames
from raysp.verbs.export.spoken_words import SpokenWords
from raysp.verbs.export.word_times import ask_words, how_to_ask

Lines = Callable[[Row, str], str]
"""Callable that returns the lines of a row, given with its id, in a file of a label shard."""
WHOLE_JOB = "pipelines/subtitles.py of raysp's repository labels a folder and writes its subtitles in one command"
Count = Callable[[Row, ShardFiles], None]
"""Callable that counts what a row has that the format cannot hold as it is."""


@dataclass(frozen=True)
class RowFiles:
    """Export of a file for each row."""

    labelling: Labelling
    names: RowNames
    suffix: str
    columns: list[str]
    text: Callable[[Row], str]
    """Content of the file of a row."""
    count: Count
    channels: Sequence[str] = ()
    """Columns with an entry for each channel, of which each has a file of its own."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of all files."""
        return (self.suffix,)

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the files of a label shard."""
        name = self.names.of(shard)
        for table in ok_rows(self.labelling, shard, self.columns, files):
            rows = to_rows(table)
            named = [(name(row), row) for row in rows]
            files.put((f"{path}{self.suffix}", self.text(row).encode()) for path, row in self._parts(named))
            _count(files, rows, self.count)
        files.remove_others(self.suffix, lambda path: self.names.is_elsewhere(self._of_row(path), shard))

    def _parts(self, named: Sequence[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
        """Yield rows with their paths, or their channels with the path and the number of the channel."""
        for path, row in named:
            if self.channels:
                channels = enumerate(by_channel(row, self.channels), 1)
                yield from ((f"{path}.{number}", one) for number, one in channels)
            else:
                yield path, row

    def _of_row(self, path: str) -> str:
        """Return the name of a row from the path of a file of it, without the suffix."""
        return path.rpartition(".")[0] if self.channels else path

    def finish(self, destination: Destination, marks: Sequence[ShardMark]) -> int:
        """Return 0: the export has no other files."""
        return 0


@dataclass(frozen=True)
class LineFiles:
    """Export of a file of lines for each label shard."""

    labelling: Labelling
    suffix: str
    columns: list[str] | None
    lines: Callable[[Shard], Lines]
    one_file: bool = False
    """Whether the files are parts of one file, `labels` and the suffix."""
    head: str = ""
    """First line of each file."""
    all_rows: bool = False
    """Whether rows that are not ok are written, too."""
    count: Count | None = None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of all files."""
        return (self.suffix,)

    def path(self, shard: Shard) -> str:
        """Return the path of the file of a label shard."""
        return f"{PARTS if self.one_file else ''}{stem_of(shard)}{self.suffix}"

    def __call__(self, shard: Shard, files: ShardFiles) -> None:
        """Write the file of a label shard."""
        lines = self.lines(shard)
        with files.file(self.path(shard), is_hashed=True) as scratch, scratch.open("wb") as file:
            file.write(b"" if self.one_file else self.head.encode())
            rows_of = every_row if self.all_rows else ok_rows
            for table in rows_of(self.labelling, shard, self.columns, files):
                rows = to_rows(table)
                file.writelines(lines(row, id_of(row, shard)).encode() for row in rows)
                _count(files, rows, self.count)

    def finish(self, destination: Destination, marks: Sequence[ShardMark]) -> int:
        """Join the parts of one file, and return the change of the number of files."""
        if not self.one_file:
            return 0
        parts = [path for mark in marks for path in mark.sizes]
        destination.join(parts, f"labels{self.suffix}", self.head.encode())
        return 1 - len(parts)


def _count(files: ShardFiles, rows: list[dict[str, object]], count: Count | None) -> None:
    files.rows += len(rows)
    files.seconds += sum(map(seconds_of, rows))
    if count:
        for row in rows:
            count(row, files)


def subtitles(labelling: Labelling, names: RowNames, to: str, options: Mapping[str, JsonValue]) -> RowFiles:
    """Return the export to subtitles, cut by the times of words or characters.

    Raises:
        PlanError: there are neither words nor texts, or no times and a row with a text is too long for one cue.
    """
    prefix, rules = str(options["column"]), _rules(options)
    spoken = SpokenWords(labelling, prefix)
    if not spoken.words and not spoken.text:
        columns = f"{prefix}_words", f"{prefix}_text"
        raise missing(labelling, to, columns, f"{ask_words(labelling.record, prefix)}. {WHOLE_JOB}")
    if not spoken.words and not spoken.chars:
        _refuse_long_rows(labelling, to, prefix, rules.max_seconds)
    write = {"srt": srt, "vtt": vtt}[to]
    name_speakers = with_names if to == "srt" else list[Span]  # WebVTT has a tag for them

    def subtitle(row: Row) -> str:
        if untimed := spoken.untimed(row):
            return write(cues_without_times(untimed, seconds_of(row), rules))
        words = name_speakers(spoken.words_of(row))
        return write(cues_of(words, rules, text=spoken.whole(row), chars=spoken.chars_of(row)))

    return RowFiles(labelling, names, suffix_of(to), spoken.columns, subtitle, spoken.count, spoken.of_channels)


def _rules(options: Mapping[str, JsonValue]) -> Rules:
    """Return the rules of cues."""
    numbers = {field.name: float(str(options[field.name])) for field in fields(Rules) if field.name != "language"}
    whole = {name: int(numbers[name]) for name in ("max_chars", "max_lines")}
    return Rules(**{**numbers, **whole}, language=str(options["language"] or "") or None)  # type: ignore[arg-type]


def _refuse_long_rows(labelling: Labelling, to: str, prefix: str, max_seconds: float) -> None:
    """Raise PlanError for a row with a text that is longer than a cue may be: it cannot be cut without times."""
    text = f"{prefix}_text"
    columns = ["id", "row", SECONDS, STATUS, text]
    for shard in (labelling.shards[name] for name in labelling.shards if name in labelling.done):
        for table in labelling.tables(shard, columns):
            longer = table.filter(pc.greater(table.column(SECONDS), pa.scalar(max_seconds)))
            for row in to_rows(longer.filter(pc.equal(longer.column(STATUS), pa.scalar(OK)))):
                if _is_written(row[text]):
                    raise PlanError(
                        f"{labelling.url}: the row {id_of(row, shard)} is {seconds_of(row):.1f} s long, longer than a "
                        f"cue of max_seconds={max_seconds:g}, and {text} has no times to cut it by. {to} needs times "
                        f"of words: {how_to_ask(labelling.record, prefix)}, or raise --max-seconds for one cue a row. "
                        f"{WHOLE_JOB}"
                    )


def _is_written(text: object) -> bool:
    """Return whether a text, or that of one channel, has characters to show."""
    return any(map(_is_written, text)) if isinstance(text, list) else bool(str(text or "").strip())


def text_grids(labelling: Labelling, names: RowNames, to: str, options: Mapping[str, JsonValue]) -> RowFiles:
    """Return the export to TextGrids.

    Raises:
        PlanError: there are no words.
    """
    prefix = str(options["column"])
    words = need_spans(labelling, to, (f"{prefix}_words",), ask_words(labelling.record, prefix))
    spoken = SpokenWords(labelling, prefix)
    others = {one: find_spans(labelling.schema, f"{prefix}_{one}") for one in ("chars", "turns")}
    tiers = {"words": words, **{name: column for name, column in others.items() if column}}

    columns = [*dict.fromkeys([*tiers.values(), *spoken.columns])]
    of_channels = [name for name in columns if is_by_channel(labelling.schema, name)]

    def spans(row: Row, name: str, column: str) -> list[Span]:
        untimed = spoken.untimed(row) if name == "words" else ""
        return [Span(untimed, 0.0, max(LEAST_SECONDS, seconds_of(row)), 0.0)] if untimed else spans_of(row, column)

    def grid(row: Row) -> str:
        found = {
            f"{name}{ending}": spans(one, name, column)
            for ending, one in _channels(row, of_channels).items()
            for name, column in tiers.items()
        }
        return textgrid(found, seconds_of(row))

    return RowFiles(labelling, names, suffix_of(to), columns, grid, partial(spoken.count, words=True))


def _channels(row: Row, of_channels: Sequence[str]) -> dict[str, Row]:
    """Return the channels of a row by the ending of the names of their tiers; a row of one label has no ending."""
    if not of_channels:
        return {"": row}
    return {f" {number}": one for number, one in enumerate(by_channel(row, of_channels), 1)}


def word_lines(labelling: Labelling, to: str, options: Mapping[str, JsonValue]) -> LineFiles:
    """Return the export to CTM files.

    Raises:
        PlanError: there are no words.
    """
    prefix = str(options["column"])
    need_spans(labelling, to, (f"{prefix}_words",), ask_words(labelling.record, prefix))
    spoken = SpokenWords(labelling, prefix)

    def lines(row: Row, id_: str) -> str:
        channels = spoken.channels(row)
        texts = [words_over(spoken.untimed(one), seconds_of(one)) or spoken.words_of(one) for one in channels]
        return "".join(ctm(id_, words, number) for number, words in enumerate(texts, 1))

    one_file, count = bool(options["one_file"]), partial(spoken.count, words=True)
    return LineFiles(labelling, ".ctm", spoken.columns, lambda shard: lines, one_file, count=count)


def speaker_lines(labelling: Labelling, to: str, options: Mapping[str, JsonValue]) -> LineFiles:
    """Return the export to RTTM files.

    Raises:
        PlanError: there are no segments.
    """
    prefix = str(options["column"])
    names = (f"{prefix}_turns", f"{prefix}_segments", f"{prefix}_speech", prefix)
    advice = "Ask for them with Turns() or Segments(), or name another column with --column"
    segments = need_spans(labelling, to, names, advice)
    of_channels = [segments] if is_by_channel(labelling.schema, segments) else []

    def lines(row: Row, id_: str) -> str:
        channels = enumerate(_channels(row, of_channels).values(), 1)
        return "".join(rttm(id_, spans_of(one, segments), number) for number, one in channels)

    return LineFiles(labelling, ".rttm", [segments], lambda shard: lines, bool(options["one_file"]))


def json_rows(labelling: Labelling, to: str, options: Mapping[str, JsonValue]) -> LineFiles:
    """Return the export of all columns to lines of JSON."""
    lines: Lines = lambda row, id_: json_line(row)  # noqa: E731
    one_file, all_rows = bool(options["one_file"]), options["rows"] == ALL
    return LineFiles(labelling, f".{to}", None, lambda shard: lines, one_file, all_rows=all_rows)


def table_rows(labelling: Labelling, to: str, options: Mapping[str, JsonValue]) -> LineFiles:
    """Return the export to CSV of all columns but those of structs, of numbers in lists, and of bytes."""
    names = [field.name for field in labelling.schema if _fits_a_cell(field.type)]
    lines: Lines = lambda row, id_: csv_line([row[name] for name in names])  # noqa: E731
    one_file, all_rows = bool(options["one_file"]), options["rows"] == ALL
    return LineFiles(labelling, f".{to}", names, lambda shard: lines, one_file, csv_line(names), all_rows)


def _fits_a_cell(kind: pa.DataType) -> bool:
    """Return whether values are texts, numbers, times, or lists of texts, which are written as JSON."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
    if pa.types.is_dictionary(kind):
        return _fits_a_cell(kind.value_type)
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def manifest_lines(
    labelling: Labelling,
    options: Mapping[str, JsonValue],
    paths: Callable[[Shard], Mapping[int, tuple[str, float | None]]],
) -> LineFiles:
    """Return the export to NeMo's manifests.

    Args:
        labelling: the sink.
        options: options of the format.
        paths: callable that returns the paths and offsets of a shard's recordings, by row; of rows that were not read
            by path, the id is written.

    Raises:
        PlanError: there are no texts, or they are of each channel.
    """
    prefix = str(options["column"])
    text, score, reference = f"{prefix}_text", f"{prefix}_score", labelling.reference
    names = labelling.schema.names
    if text not in names:
        raise missing(labelling, "nemo", (text,), "Ask for it with Transcript()")
    if is_by_channel(labelling.schema, text):
        raise PlanError(
            f"{labelling.url}: column {text!r} has a text for each channel, and a line of a NeMo manifest has one; "
            "export to jsonl or ctm, or label one channel by Decode(channel=0)"
        )
    known = reference if reference in names else None

    def lines(shard: Shard) -> Lines:
        found = paths(shard)

        def line(row: Row, id_: str) -> str:
            path, offset = found.get(int(str(row["row"])), (id_, None))
            spoken = row[known] if known and row[known] is not None else row[text]
            values = {"audio_filepath": path, "duration": row[SECONDS], "offset": offset, "text": spoken or ""}
            values |= {"pred_text": row[text] or "", "score": row.get(score)}
            return json_line({key: value for key, value in values.items() if key != "offset" or value is not None})

        return line

    def count(row: Row, files: ShardFiles) -> None:
        files.without_reference += known is not None and row[known] is None

    columns = [text, *([score] if score in names else []), *([known] if known else [])]
    return LineFiles(labelling, ".jsonl", columns, lines, bool(options["one_file"]), count=count)
