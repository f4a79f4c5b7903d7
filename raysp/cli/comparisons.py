"""Printed form of a comparison of two labellings: what is compared, and for each column its differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from raysp.cli.console import out, print_fact, print_some, say
from raysp.cli.evaluations import (
    MOST_GROUPS,
    cell_text,
    print_groups,
    print_limits,
    print_table,
    print_worst,
    table_of,
)

if TYPE_CHECKING:
    from raysp.evaluation.diff.diff_result import AgainstReference, ClassChange, ColumnDifference, LabelDiff, LowRow


def print_diff(found: "LabelDiff", columns: Sequence[str]) -> None:
    """Print a comparison, with a table for each of some columns."""
    for name, fact in found.facts.items():
        print_fact(name, fact)
    for one in found.columns if found.rows.compared else ():
        _print_column(one, tuple(dict.fromkeys(columns)))
    if not found.rows.compared:
        say("no row was compared: none is ok in both")
    print_limits(found.limits)


def _print_column(one: "ColumnDifference", columns: Sequence[str]) -> None:
    out.print(f"{cell_text(one.column)}, B against A", style="bold", markup=False)
    for name, fact in one.facts.items():
        print_fact(name, fact)
    if one.against:
        _print_against(one.against)
    for column in columns:
        if groups := one.by[column]:
            print_groups(column, groups)
        if one.against:
            print_groups(column, one.against.by[column], ("wer_change", "wer_a", "wer_b"))
    if one.changes:
        _print_changes(one.changes)
    if one.worst:
        print_worst(one.worst, "A", "B")
    if one.lowest:
        _print_lowest(one.lowest)


def _print_against(against: "AgainstReference") -> None:
    """Print the error rates of both labellings and their differences."""
    scores = against.scores
    table = table_of(f"against {against.column}", "WER", "95% interval", "CER", "95% interval")
    for title, end in (("A", "_a"), ("B", "_b"), ("B less A", "_change")):
        names = [f"{rate}{end}" for rate in ("wer", "cer")]
        table.add_row(title, *(text for name in names for text in (scores.value(name), scores.interval(name))))
    print_table(table, 0, "row")
    print_fact("WER change", against.verdict)


def _print_changes(changes: "Sequence[ClassChange]") -> None:
    table = table_of("class in A", "class in B", "rows")
    for one in changes[:MOST_GROUPS]:
        table.add_row(Text(cell_text(one.a)), Text(cell_text(one.b)), f"{one.rows:,}")
    print_table(table, len(changes) - MOST_GROUPS, "change")


def _print_lowest(rows: "Sequence[LowRow]") -> None:
    out.print("Lowest cosines", style="bold", markup=False)
    print_some(out, [f"{cell_text(row.id)}  {row.cosine:.4f}" for row in rows], "row")
