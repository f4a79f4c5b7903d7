"""The result of a comparison of two labellings as one HTML file without scripts or links."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from raysp.evaluation.diff.diff_result import AgainstReference, ColumnDifference, LabelDiff
from raysp.pages import rendering
from raysp.pages.page_tables import MOST_GROUPS, ShownRow, Table, groups_table, left_out, short, shown_row
from raysp.words import duration

MOST_FACT = 300
MOST_COLUMNS = 12
MOST_TABLES = 8
MOST_WORST = 20
"""Rows that are shown of each column."""


@dataclass(frozen=True)
class _Shown:
    """A column with its differences."""

    name: str
    facts: dict[str, str]
    tables: tuple[Table, ...]
    worst: tuple[ShownRow, ...]


def render(found: LabelDiff) -> str:
    """Return a comparison as HTML."""
    rows = found.rows
    return rendering.render(
        "diff.html",
        title=f"{_name(found.a.sink)} and {_name(found.b.sink)}",
        subtitle=f"{rows.compared:,} of {rows.total:,} rows compared, {duration(found.seconds)} of audio",
        facts={_capital(name): short(fact, MOST_FACT) for name, fact in found.facts.items()},
        columns=[_shown(one) for one in found.columns[:MOST_COLUMNS]] if rows.compared else [],
        limits=[short(limit.words) for limit in found.limits],
    )


def _name(sink: str) -> str:
    return short(sink.rstrip("/").rpartition("/")[2] or sink)


def _capital(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}"


def _shown(one: ColumnDifference) -> _Shown:
    facts = {_capital(name): short(fact, MOST_FACT) for name, fact in one.facts.items()}
    if one.against:
        facts["WER change"] = one.against.verdict
    worst = tuple(shown_row(row) for row in one.worst[:MOST_WORST])
    return _Shown(short(one.column), facts, tuple(_tables(one)), worst)


def _tables(one: ColumnDifference) -> Iterator[Table]:
    if one.against:
        yield _against(one.against)
    for column, groups in [*one.by.items()][:MOST_TABLES]:
        if groups:
            yield groups_table(column, groups)
    for column, groups in [*one.against.by.items()][:MOST_TABLES] if one.against else ():
        if groups:
            table = groups_table(column, groups, ("wer_change", "wer_a", "wer_b"))
            yield replace(table, title=f"{table.title}, against the references")
    if one.changes:
        changes = [(short(change.a), short(change.b), f"{change.rows:,}") for change in one.changes[:MOST_GROUPS]]
        yield Table("Changed classes", ("in A", "in B", "rows"), changes, left_out(one.changes, "change"))
    if one.lowest:
        rows = [
            (short(row.id), short(row.shard), f"{row.row:,}", f"{row.cosine:.4f}") for row in one.lowest[:MOST_WORST]
        ]
        yield Table("Lowest cosines", ("id", "shard", "row", "cosine"), rows, left_out(one.lowest, "row", MOST_WORST))


def _against(against: AgainstReference) -> Table:
    """Return the error rates of both labellings and their differences."""
    scores = against.scores
    sides = (("A", "_a"), ("B", "_b"), ("B less A", "_change"))
    rows = []
    for title, end in sides:
        names = [f"{rate}{end}" for rate in ("wer", "cer")]
        rows.append((title, *(text for name in names for text in (scores.value(name), scores.interval(name)))))
    titles = ("labels", "WER", "95% interval", "CER", "95% interval")
    return Table(f"Against the references in {short(against.column)}", titles, rows)
