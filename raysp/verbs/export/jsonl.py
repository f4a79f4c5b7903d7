"""Export of all columns to lines of JSON."""

from dataclasses import KW_ONLY
from typing import ClassVar, Literal

from raysp.specs.values import spec
from raysp.text.formats.safe_values import json_line
from raysp.verbs.export.row_files import LineFiles, Lines
from raysp.verbs.export.source_audio import Source


@spec
class Jsonl:
    """Lines of JSON: an object a row.

    Attributes:
        rows: "all" writes rows that are not ok too, with `status`, `error_type` and `error_message`.
        one_file: write one file for all label shards.
    """

    NAME: ClassVar[str] = "jsonl"

    rows: Literal["ok", "all"] = "ok"
    _: KW_ONLY
    one_file: bool = False

    def writing(self, source: Source) -> LineFiles:
        """Return the export to lines of JSON."""
        lines: Lines = lambda row, id_: json_line(row)  # noqa: E731
        all_rows = self.rows == "all"
        return LineFiles(source.labelling, ".jsonl", None, lambda shard: lines, self.one_file, all_rows=all_rows)
