"""Printed form of rows of label shards: a table with one line per row, or one field per line if rows are too wide."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from raysp.cli.console import out, print_folded
from raysp.words import printable

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_WIDTH = 12
"""Least width of a truncated column; if there is less room, columns are left out."""
FIELD_CHARACTERS = 400
"""Longest value on a separate line."""


def print_rows(table: "pa.Table", title: str, *, is_whole: bool = False) -> bool:
    """Print rows as a table, without the columns of errors if no row has one, and without their messages.

    Args:
        table: rows of label shards.
        title: line printed above them.
        is_whole: if the table is too wide, print one field per line instead of truncating values or omitting columns.

    Returns:
        Whether the rows were printed as a table.
    """
    rows = [{name: _cell(value) for name, value in row.items()} for row in table.to_pylist()]
    names = [name for name in table.column_names if name not in ("row", "error_message")]
    if all(row["error_type"] == "-" for row in rows):
        names = [name for name in names if name not in ("status", "error_type")]
    out.print(printable(title), style="bold", markup=False)
    wanted = {name: max([cell_len(printable(name)), *(cell_len(row[name]) for row in rows)]) for name in names}
    if is_whole and _width(wanted) > out.width:
        _print_fields(table, [*names, "error_message"])
        return False
    widths = _fitted(wanted, _droppable(table, names), out.width)
    drawn = Table()
    for name in widths:
        drawn.add_column(Text(printable(name)), no_wrap=True, overflow="ellipsis", max_width=widths[name])
    for row in rows:
        drawn.add_row(*(Text(row[name]) for name in widths))
    out.print(drawn, soft_wrap=False)
    if left_out := [printable(name) for name in names if name not in widths]:
        print_folded(out, f"Columns not shown: {', '.join(left_out)}", 2)
    return True


def _cell(value: object) -> str:
    from raysp.labelling.finished.cells import cell

    return printable(cell(value))


def _droppable(table: "pa.Table", names: Sequence[str]) -> list[str]:
    """Return columns in the order in which they are left out: lists, kept columns, others; the id is always kept.

    Within each kind, the last column is left out first.
    """
    import pyarrow as pa

    places = {name: place for place, name in enumerate(table.column_names)}
    outputs = places.get("row", 0)

    def order(name: str) -> tuple[int, int]:
        kind = 0 if pa.types.is_nested(table.schema.field(name).type) else 1 if places[name] < outputs else 2
        return kind, -places[name]

    return sorted(names[1:], key=order)


def _fitted(wanted: Mapping[str, int], droppable: Sequence[str], room: int) -> dict[str, int]:
    """Return the columns that fit, with their widths: narrow ones in full, wide ones share the rest equally."""
    least = {name: min(width, LEAST_WIDTH) for name, width in wanted.items()}
    for name in droppable:
        if _width(least) <= room:
            break
        del least[name]
    left = room - _width(least)
    for place, name in enumerate(sorted(least, key=wanted.__getitem__)):
        more = min(wanted[name] - least[name], max(0, left) // (len(least) - place))
        least[name] += more
        left -= more
    return least


def _width(widths: Mapping[str, int]) -> int:
    """Return the width of a table: each column adds two spaces and a border."""
    return sum(width + 3 for width in widths.values()) + 1


def _print_fields(table: "pa.Table", names: Sequence[str]) -> None:
    """Print one field per line, without null fields."""
    from raysp.labelling.finished.cells import cell

    names = [name for name in names if table.column(name).null_count < table.num_rows]
    width = max(cell_len(printable(name)) for name in names)
    for number, row in enumerate(table.to_pylist()):
        out.print(f"row {row.get('row', number)}", style="bold")
        for name in names:
            if row[name] is not None:
                value = printable(cell(row[name], FIELD_CHARACTERS))
                print_folded(out, f"  {printable(name):{width}}  {value}", width + 4)
