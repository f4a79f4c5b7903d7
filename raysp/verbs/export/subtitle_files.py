"""Export to subtitles, SubRip and WebVTT: a file a row."""

from dataclasses import KW_ONLY, fields
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from raysp.columns import OK, SECONDS, STATUS
from raysp.errors import PlanError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.specs.values import spec
from raysp.text.formats.cues import Rules, cues_of, cues_without_times, srt, vtt, with_names
from raysp.text.times import Span
from raysp.verbs.export.export_rows import Row, id_of, missing, seconds_of, to_rows
from raysp.verbs.export.naming import row_names
from raysp.verbs.export.row_files import RowFiles
from raysp.verbs.export.source_audio import Source
from raysp.verbs.export.spoken_words import SpokenWords
from raysp.verbs.export.word_times import ask_words, how_to_ask

WHOLE_JOB = "`raysp label FOLDER --model CHECKPOINT --to srt` labels a folder and writes its subtitles in one command"


@spec
class Srt:
    """SubRip subtitles, cut by the times of words or characters. The defaults follow Netflix's guides.

    Recordings are cut so that the most cues end after a sentence, after a clause or at a pause, and the least text
    lacks the time to read it. A cue ends at a pause of one second and where the speaker changes. Every word is in one
    cue: where speech is too fast, the limits of time give way, never the text. Full-width characters count as two;
    Netflix's rules are `max_chars=32` and `max_chars_per_second=18` for Chinese, 26 and 8 for Japanese. Both break
    between characters where Unicode (UAX 14) allows it; Thai, Lao, Khmer and Burmese break at spaces. Rows without
    times of words are one cue if they last at most `max_seconds`.

    Attributes:
        column: prefix of the columns.
        names: "path" names files as their recordings, "id" by the id of the row in a folder for each label shard.
            None: "path" if rows were read by path or from tar files, and the source can be read. Of rows with the same
            name the first keeps it, and the others get "~" and the number of the row. Characters that some system does
            not allow in names become "_".
        max_chars: characters of a line.
        max_lines: lines of a cue.
        min_seconds: shortest display of a cue.
        max_seconds: longest display of a cue.
        max_chars_per_second: reading speed. Cues are shown longer than spoken if there is time.
        min_gap_seconds: time between cues.
        language: language of the texts. Lines then break before its conjunctions and prepositions, and not after its
            articles.
    """

    NAME: ClassVar[str] = "srt"
    BESIDE: ClassVar[bool] = True
    """Whether the files can stand beside recordings."""

    column: str = "pred"
    _: KW_ONLY
    names: Literal["id", "path"] | None = None
    max_chars: Annotated[int, Field(ge=8, le=1000)] = 42
    max_lines: Annotated[int, Field(ge=1, le=3)] = 2
    min_seconds: Annotated[float, Field(ge=0)] = 0.833
    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 7.0
    max_chars_per_second: Annotated[float, Field(ge=1, le=1000)] = 17.0
    min_gap_seconds: Annotated[float, Field(ge=0, le=1)] = 0.083
    language: Literal["de", "en", "es", "fr", "it"] | None = None

    def __post_init__(self) -> None:
        """Check that the shortest display is below the longest."""
        if not self.min_seconds < self.max_seconds:
            raise ValueError(f"min_seconds={self.min_seconds:g}; expected less than max_seconds={self.max_seconds:g}")

    def writing(self, source: Source) -> RowFiles:
        """Return the export to files of subtitles.

        Raises:
            PlanError: there are neither words nor texts, or no times and a row with a text is too long for one cue.
        """
        labelling, suffix = source.labelling, f".{self.NAME}"
        named = row_names(source, suffix, self.names)
        rules = Rules(**{field.name: getattr(self, field.name) for field in fields(Rules)})
        spoken = SpokenWords(labelling, self.column)
        if not spoken.words and not spoken.text:
            columns = f"{self.column}_words", f"{self.column}_text"
            raise missing(labelling, self.NAME, columns, f"{ask_words(labelling, self.column)}. {WHOLE_JOB}")
        if not spoken.words and not spoken.chars:
            _refuse_long_rows(labelling, self.NAME, self.column, self.max_seconds)
        write = {"srt": srt, "vtt": vtt}[self.NAME]
        name_speakers = with_names if self.NAME == "srt" else list[Span]  # WebVTT has a tag for them

        def subtitle(row: Row) -> str:
            if untimed := spoken.untimed(row):
                return write(cues_without_times(untimed, seconds_of(row), rules))
            words = name_speakers(spoken.words_of(row))
            return write(cues_of(words, rules, text=spoken.whole(row), chars=spoken.chars_of(row)))

        return RowFiles(labelling, named, suffix, spoken.columns, subtitle, spoken.count, spoken.of_channels)


@spec
class Vtt(Srt):
    """WebVTT subtitles; the fields are the same as for `Srt`."""

    NAME: ClassVar[str] = "vtt"


def _refuse_long_rows(labelling: Labelling, to: str, prefix: str, max_seconds: float) -> None:
    """Raise PlanError for a row with a text that is longer than a cue may be: it cannot be cut without times."""
    text = f"{prefix}_text"
    columns = ["id", "row", SECONDS, STATUS, text]
    for shard in labelling.finished_shards:
        for table in labelling.tables(shard, columns):
            longer = table.filter(pc.greater(table.column(SECONDS), pa.scalar(max_seconds)))
            for row in to_rows(longer.filter(pc.equal(longer.column(STATUS), pa.scalar(OK)))):
                if _is_written(row[text]):
                    raise PlanError(
                        f"{labelling.url}: the row {id_of(row, shard)} is {seconds_of(row):.1f} s long, longer than a "
                        f"cue of max_seconds={max_seconds:g}, and {text} has no times to cut it by. {to} needs times "
                        f"of words: {how_to_ask(labelling, prefix)}, or raise to.max_seconds for one cue a row. "
                        f"{WHOLE_JOB}"
                    )


def _is_written(text: object) -> bool:
    """Return whether a text, or the text of one channel, has characters to show."""
    return any(map(_is_written, text)) if isinstance(text, list) else bool(str(text or "").strip())
