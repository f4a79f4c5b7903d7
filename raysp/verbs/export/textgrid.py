"""Export to Praat's TextGrid files: one file per row."""

from dataclasses import KW_ONLY
from functools import partial
from typing import ClassVar, Literal

from raysp.specs.values import spec
from raysp.text.formats.annotations import LEAST_SECONDS, textgrid
from raysp.text.times import Span
from raysp.verbs.export.export_rows import (
    Row,
    find_spans,
    is_by_channel,
    need_spans,
    numbered_channels,
    seconds_of,
    spans_of,
)
from raysp.verbs.export.naming import row_names
from raysp.verbs.export.row_files import RowFiles
from raysp.verbs.export.source_audio import Source
from raysp.verbs.export.spoken_words import SpokenWords
from raysp.verbs.export.word_times import ask_words


@spec
class TextGrid:
    """Praat's long text format, with tiers of words, characters and turns.

    Attributes:
        column: prefix of the columns.
        names: as for `Srt`.
    """

    NAME: ClassVar[str] = "textgrid"

    column: str = "pred"
    _: KW_ONLY
    names: Literal["id", "path"] | None = None

    def writing(self, source: Source) -> RowFiles:
        """Return the export to TextGrids.

        Raises:
            PlanError: there are no words.
        """
        labelling = source.labelling
        named = row_names(source, ".TextGrid", self.names)
        words = need_spans(labelling, self.NAME, (f"{self.column}_words",), ask_words(labelling, self.column))
        spoken = SpokenWords(labelling, self.column)
        optional = {kind: find_spans(labelling.schema, f"{self.column}_{kind}") for kind in ("chars", "turns")}
        tiers = {"words": words, **{name: column for name, column in optional.items() if column}}
        columns = [*dict.fromkeys([*tiers.values(), *spoken.columns])]
        of_channels = [name for name in columns if is_by_channel(labelling.schema, name)]

        def spans(row: Row, name: str, column: str) -> list[Span]:
            untimed = spoken.untimed(row) if name == "words" else ""
            return [Span(untimed, 0.0, max(LEAST_SECONDS, seconds_of(row)), 0.0)] if untimed else spans_of(row, column)

        def grid(row: Row) -> str:
            spans_by_tier = {
                f"{name}{ending}": spans(channel, name, column)
                for ending, channel in numbered_channels(row, of_channels).items()
                for name, column in tiers.items()
            }
            return textgrid(spans_by_tier, seconds_of(row))

        return RowFiles(labelling, named, ".TextGrid", columns, grid, partial(spoken.count, words=True))
