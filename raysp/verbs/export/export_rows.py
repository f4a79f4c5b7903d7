"""Rows of label shards for export: rows that are ok, counts of other rows, and the spans in their columns."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK, SECONDS, STATUS
from raysp.corpus.shards import Shard
from raysp.errors import PlanError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.first_rows import readable
from raysp.sink.label_rows import Cursor, stretches
from raysp.text.times import Span
from raysp.verbs.export.destination import ShardFiles

Row = Mapping[str, object]
KEYS = ("id", "row", SECONDS, STATUS, "error_type")
"""Columns that are read of every label shard."""
TEXT_KEYS = ("word", "char", "label")
"""Fields with the text of a span."""
SPEECH = "speech"
"""Text of a span without one."""
SPEAKER = "speaker"
"""Field with the number of who speaks, of turns and of words."""
OF_SOURCE = "source_"
"""Prefix of kept columns that have the name of a column of the export, such as the text of the whole recording."""


def stem_of(shard: Shard) -> str:
    """Return the path of a label shard without its suffix."""
    return shard.name.removesuffix(".parquet")


def kept_names(labelling: Labelling, own: Collection[str], besides: str | None = None) -> dict[str, str]:
    """Return the names in an export of the columns of the source that a sink keeps, by their own names.

    Args:
        labelling: the sink.
        own: names of the export's own columns, the id among them.
        besides: column of the source that is one of these.

    Raises:
        PlanError: a column has the name of another one also with `OF_SOURCE` before it.
    """
    names = [name for name in labelling.kept if name in labelling.schema.names and name not in ("id", besides)]
    kept = {name: f"{OF_SOURCE}{name}" if name in own else name for name in names}
    if len({*kept.values(), *own}) < len(kept) + len(own):
        raise PlanError(
            f"{labelling.url}: the kept columns {', '.join(kept)} have the names of columns of the export also with "
            f"{OF_SOURCE!r} before them; rename one in the source"
        )
    return kept


def ok_rows(labelling: Labelling, shard: Shard, columns: list[str] | None, files: ShardFiles) -> Iterator[pa.Table]:
    """Yield the ok rows of a label shard in batches, and count left-out rows by their error type.

    Args:
        labelling: the sink.
        shard: the shard.
        columns: columns besides `KEYS`; None: all.
        files: receives the counts.
    """
    names = None if columns is None else list(dict.fromkeys([*KEYS, *columns]))
    for table in labelling.tables(shard, names):
        yield only_ok(table, files)
    for table in labelling.left_out(shard, [STATUS, "error_type"]):
        only_ok(table, files)


def every_row(labelling: Labelling, shard: Shard, columns: list[str] | None, files: ShardFiles) -> Iterator[pa.Table]:
    """Yield all rows of a label shard in batches and in order, including rows left out of it as not ok.

    Arguments as for `ok_rows`; no row is counted as left out.
    """
    names = labelling.schema.names if columns is None else list(dict.fromkeys([*KEYS, *columns]))
    labels, rest = Cursor(labelling.tables(shard, names)), Cursor(labelling.left_out(shard, names))
    for table, _ in stretches(labels, rest, 0, shard.num_rows):
        yield table


def only_ok(table: pa.Table, files: ShardFiles) -> pa.Table:
    """Return the ok rows, and count all other rows."""
    is_ok = pc.is_in(table.column(STATUS), value_set=pa.array([OK]))
    not_ok = table.filter(pc.invert(is_ok))
    kinds = zip(not_ok.column(STATUS).to_pylist(), not_ok.column("error_type").to_pylist(), strict=True)
    files.tally.left_out.update(str(kind or status) for status, kind in kinds)
    return table.filter(is_ok)


def to_rows(table: pa.Table) -> list[dict[str, object]]:
    """Return rows as values; invalid UTF-8 of columns that were carried over is replaced."""
    try:
        return table.to_pylist()
    except UnicodeDecodeError:
        return readable(table).to_pylist()


def id_of(row: Row, shard: Shard) -> str:
    """Return the id of a row as text; without one, its place."""
    id_ = row["id"]
    return f"{stem_of(shard)}:{row['row']}" if id_ is None else str(id_)


def seconds_of(row: Row) -> float:
    """Return the duration of a row."""
    seconds = row[SECONDS]
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def spans_of(row: Row, column: str | None) -> list[Span]:
    """Return the spans in a column of a row; empty if it is null or there is no column."""
    values = cast("list[Mapping[str, object] | None] | None", row[column] if column else None)
    return [_span(value) for value in values or [] if value is not None]


def _span(value: Mapping[str, object]) -> Span:
    number = value.get(SPEAKER)
    speaker = "" if number is None else f"{SPEAKER}_{number}"
    text = next((value[key] for key in TEXT_KEYS if key in value), speaker or SPEECH)
    start, end, score = (_number(value.get(name)) for name in ("start", "end", "score"))
    return Span("" if text is None else str(text), start, end, score, speaker)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def holds_spans(kind: pa.DataType) -> bool:
    """Return whether a column has lists of structs with a start and an end."""
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
        return False
    fields = {field.name: field.type for field in kind.value_type}
    return all(pa.types.is_floating(fields.get(name, pa.null())) for name in ("start", "end"))


def is_by_channel(schema: pa.Schema, column: str) -> bool:
    """Return whether a column has lists of an entry for each channel: of texts, or of the spans of a text."""
    kind = schema.field(column).type if column in schema.names else pa.null()
    return pa.types.is_list(kind) and (pa.types.is_string(kind.value_type) or holds_spans(kind.value_type))


def by_channel(row: Row, columns: Sequence[str]) -> list[Row]:
    """Return one row per channel, with its entries of the columns; null where an entry is missing."""
    lists = {name: cast("list[object] | None", row[name]) or [] for name in columns}
    return [{**row, **dict(zip(lists, entries, strict=True))} for entries in zip_longest(*lists.values())]


def numbered_channels(row: Row, of_channels: Sequence[str]) -> dict[str, Row]:
    """Return the channels of a row by the ending of the names of their tiers; a row of one label has no ending."""
    if not of_channels:
        return {"": row}
    return {f" {number}": channel for number, channel in enumerate(by_channel(row, of_channels), 1)}


def find_spans(schema: pa.Schema, *names: str) -> str | None:
    """Return the first of some columns that is there and has spans, of each row or of each channel."""

    def holds(kind: pa.DataType) -> bool:
        return holds_spans(kind) or (pa.types.is_list(kind) and holds_spans(kind.value_type))

    return next((name for name in names if name in schema.names and holds(schema.field(name).type)), None)


def need_spans(labelling: Labelling, to: str, names: tuple[str, ...], advice: str) -> str:
    """Return the first of some columns that has spans.

    Raises:
        PlanError: no column has spans; the message has the columns found and the outputs to add.
    """
    if column := find_spans(labelling.schema, *names):
        return column
    raise missing(labelling, to, names, f"with a start and an end in seconds. {advice}")


def missing(labelling: Labelling, to: str, names: tuple[str, ...], advice: str) -> PlanError:
    """Return the error for columns that a format needs."""
    outputs = ", ".join(labelling.outputs) or "none"
    return PlanError(
        f"{labelling.url}: the format {to} needs a column {' or '.join(names)}{' ' if advice[0].islower() else '. '}"
        f"{advice}. Found the output columns {outputs}"
    )
