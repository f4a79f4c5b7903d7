"""Words of rows with their times, and the texts of rows whose words have no times.

These rows have null or empty words although there is a text, or words that an aligner could not place.
"""

from dataclasses import dataclass
from functools import cached_property

from raysp.labelling.finished.finished_labels import Labelling
from raysp.sink.run_record import objects_in
from raysp.text.formats.safe_values import is_timed
from raysp.text.times import Span, timed_words
from raysp.verbs.export.destination import ShardFiles
from raysp.verbs.export.export_rows import Row, by_channel, find_spans, is_by_channel, spans_of

NO_TIME = "word_without_time"
"""Reason for leaving out words: they have no time, while other words of their row have one."""


@dataclass(frozen=True)
class SpokenWords:
    """Words of the rows of a sink, in the columns of a prefix."""

    labelling: Labelling
    prefix: str

    @cached_property
    def words(self) -> str | None:
        """Column of the words."""
        return find_spans(self.labelling.schema, f"{self.prefix}_words")

    @cached_property
    def chars(self) -> str | None:
        """Column of the characters."""
        return find_spans(self.labelling.schema, f"{self.prefix}_chars")

    @cached_property
    def text(self) -> str | None:
        """Column of the texts that a transcript writes."""
        name = f"{self.prefix}_text"
        return name if name in self.labelling.schema.names else None

    @cached_property
    def columns(self) -> list[str]:
        """Columns that are read."""
        return [*dict.fromkeys(column for column in (self.words, self.text or self._aligned, self.chars) if column)]

    @cached_property
    def _aligned(self) -> str | None:
        """Column of the texts that an `Align` of the prefix places."""
        for output in (output for step in self.labelling.record.steps for output in objects_in(step, "outputs")):
            if (output.get("type"), output.get("name", "aligned")) == ("Align", self.prefix):
                column = output.get("text") or f"{output.get('of')}_text"
                return str(column) if column in self.labelling.schema.names else None
        return None

    @cached_property
    def of_channels(self) -> list[str]:
        """Columns that have an entry for each channel."""
        return [name for name in self.columns if is_by_channel(self.labelling.schema, name)]

    def channels(self, row: Row) -> list[Row]:
        """Return the channels of a row; the row itself where it has one label."""
        return by_channel(row, self.of_channels) if self.of_channels else [row]

    def whole(self, row: Row) -> str:
        """Return the text of a row or channel that a transcript writes; empty without one."""
        return str(row[self.text] or "") if self.text else ""

    def chars_of(self, row: Row) -> list[Span]:
        """Return the characters of a row or channel."""
        return spans_of(row, self.chars)

    def words_of(self, row: Row) -> list[Span]:
        """Return the words of a row or channel; without a column of them, the words of its text by its characters."""
        return spans_of(row, self.words) if self.words else timed_words(self.whole(row), self.chars_of(row))

    def untimed(self, row: Row) -> str:
        """Return the text of a row or channel without word times; empty if a word has a time, or without a text."""
        words = self.words_of(row)
        if any(map(is_timed, words)):
            return ""
        text = self.whole(row) or " ".join(word.text for word in words)
        return (text or str(row[self._aligned] or "") if self._aligned else text).strip()

    def count(self, row: Row, files: ShardFiles, *, words: bool = False) -> None:
        """Count a row if a text of it has no times; with `words` also single words without one, which are left out."""
        channels = self.channels(row)
        files.tally.untimed += any(map(self.untimed, channels))
        if words:
            timed = [[is_timed(word) for word in self.words_of(channel)] for channel in channels]
            missing = sum(are_timed.count(False) for are_timed in timed if any(are_timed))
            files.tally.left_out.update({NO_TIME: missing} if missing else {})
