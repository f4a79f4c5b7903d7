"""Export of the columns of texts and numbers to CSV."""

from dataclasses import KW_ONLY
from typing import ClassVar, Literal

import pyarrow as pa

from raysp.specs.values import spec
from raysp.text.formats.safe_values import csv_line
from raysp.verbs.export.row_files import LineFiles, Lines
from raysp.verbs.export.source_audio import Source


@spec
class Csv:
    """CSV: all columns except structs, lists of numbers, and bytes.

    Attributes:
        rows: as for `Jsonl`.
        one_file: write one file for all label shards.
    """

    NAME: ClassVar[str] = "csv"

    rows: Literal["ok", "all"] = "ok"
    _: KW_ONLY
    one_file: bool = False

    def writing(self, source: Source) -> LineFiles:
        """Return the export to CSV."""
        names = [field.name for field in source.labelling.schema if _fits_a_cell(field.type)]
        lines: Lines = lambda row, id_: csv_line([row[name] for name in names])  # noqa: E731
        head, all_rows = csv_line(names), self.rows == "all"
        return LineFiles(source.labelling, ".csv", names, lambda shard: lines, self.one_file, head, all_rows)


def _fits_a_cell(kind: pa.DataType) -> bool:
    """Return whether values are texts, numbers, times, or lists of texts, which are written as JSON."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
    if pa.types.is_dictionary(kind):
        return _fits_a_cell(kind.value_type)
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
