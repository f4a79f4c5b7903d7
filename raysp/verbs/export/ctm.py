"""Export to CTM files: one line per word."""

from dataclasses import KW_ONLY
from functools import partial
from typing import ClassVar

from raysp.specs.values import spec
from raysp.text.formats.annotations import ctm
from raysp.text.formats.cues import words_over
from raysp.verbs.export.export_rows import Row, need_spans, seconds_of
from raysp.verbs.export.row_files import LineFiles
from raysp.verbs.export.source_audio import Source
from raysp.verbs.export.spoken_words import SpokenWords
from raysp.verbs.export.word_times import ask_words


@spec
class Ctm:
    """CTM files: `id 1 start duration word confidence`.

    Attributes:
        column: prefix of the columns.
        one_file: write one file for all label shards.
    """

    NAME: ClassVar[str] = "ctm"

    column: str = "pred"
    _: KW_ONLY
    one_file: bool = False

    def writing(self, source: Source) -> LineFiles:
        """Return the export to CTM files.

        Raises:
            PlanError: there are no words.
        """
        labelling = source.labelling
        need_spans(labelling, self.NAME, (f"{self.column}_words",), ask_words(labelling, self.column))
        spoken = SpokenWords(labelling, self.column)

        def lines(row: Row, id_: str) -> str:
            texts = [words_over(spoken.untimed(c), seconds_of(c)) or spoken.words_of(c) for c in spoken.channels(row)]
            return "".join(ctm(id_, words, number) for number, words in enumerate(texts, 1))

        count = partial(spoken.count, words=True)
        return LineFiles(labelling, ".ctm", spoken.columns, lambda shard: lines, self.one_file, count=count)
