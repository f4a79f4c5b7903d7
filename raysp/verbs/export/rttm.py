"""Export to RTTM files: one line per turn, segment or region of speech."""

from dataclasses import KW_ONLY
from typing import ClassVar

from raysp.specs.values import spec
from raysp.text.formats.annotations import rttm
from raysp.verbs.export.export_rows import Row, is_by_channel, need_spans, numbered_channels, spans_of
from raysp.verbs.export.row_files import LineFiles
from raysp.verbs.export.source_audio import Source


@spec
class Rttm:
    """RTTM files: `SPEAKER` lines.

    Attributes:
        column: prefix of the columns, or the name of one.
        one_file: write one file for all label shards.
    """

    NAME: ClassVar[str] = "rttm"

    column: str = "pred"
    _: KW_ONLY
    one_file: bool = False

    def writing(self, source: Source) -> LineFiles:
        """Return the export to RTTM files.

        Raises:
            PlanError: there are no segments.
        """
        labelling = source.labelling
        names = (*(f"{self.column}_{kind}" for kind in ("turns", "segments", "speech")), self.column)
        advice = "Ask for them with Turns() or Segments(), or name another column with --set to.column=NAME"
        segments = need_spans(labelling, self.NAME, names, advice)
        of_channels = [segments] if is_by_channel(labelling.schema, segments) else []

        def lines(row: Row, id_: str) -> str:
            channels = enumerate(numbered_channels(row, of_channels).values(), 1)
            return "".join(rttm(id_, spans_of(channel, segments), number) for number, channel in channels)

        return LineFiles(labelling, ".rttm", [segments], lambda shard: lines, self.one_file)
