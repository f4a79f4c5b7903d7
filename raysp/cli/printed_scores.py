"""Printed form of evaluations and comparisons of labellings: metrics, tables, and the worst rows with differences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from raysp.cli.console import out, print_fact, print_folded, say
from raysp.cli.printed_runs import print_examples, print_failures, print_nothing_labelled
from raysp.words import count, printable

if TYPE_CHECKING:
    from raysp.evaluation.diff.diff_result import AgainstReference, ClassChange, ColumnDifference, LabelDiff
    from raysp.evaluation.evaluate.evaluation_result import EvaluationResult
    from raysp.evaluation.limits import Limit
    from raysp.evaluation.scores import ClassScores, Group, WorstRow

MOST_GROUPS = 10
"""Rows of a table of groups."""
CONTEXT_WORDS = 3
"""Equal words shown before and after a difference."""
LINES_OF_A_ROW = 2
"""Lines of a worst row on a terminal."""


def print_evaluation(result: "EvaluationResult", columns: Sequence[str]) -> None:
    """Print an evaluation, with a table for each of some columns."""
    from raysp.evaluation.evaluate.evaluation_result import LIMITS

    print_failures(result.run.shards_failed)
    for name, fact in result.facts.items():
        if name != LIMITS:
            print_fact(name, fact)
    print_examples(result.run)
    if result.classes:
        _print_classes(result.classes)
    for column in dict.fromkeys(columns):
        if groups := result.by[column]:
            print_groups(column, groups)
    if result.worst:
        print_worst(result.worst)
    print_nothing_labelled(result.run)
    if result.nothing_compared and not result.run.nothing_labelled:
        say(result.nothing_compared)
    print_limits(result.limits)
    for name, command in result.next_commands.items():
        print_fact(name, f"`{command}`")


def print_limits(limits: "Sequence[Limit]") -> None:
    """Print the limits that are met; report the others on stderr."""
    for limit in limits:
        if limit.is_met:
            print_fact("limit", limit.words)
        else:
            say(limit.words)


def print_groups(column: str, groups: "Sequence[Group]", metrics: Sequence[str] | None = None) -> None:
    """Print a table of some metrics of groups, the first of them with its interval; None: all metrics."""
    from raysp.evaluation.scores import TITLES

    has_words = "words" in groups[0].scores.counts
    first, *others = metrics or groups[0].scores.metrics
    titles = [TITLES[first], "95% interval", *(TITLES[name] for name in others)]
    table = table_of(column, "rows", *(["words"] if has_words else []), *titles)
    for group in groups[:MOST_GROUPS]:
        scores = group.scores
        words = [f"{scores.counts['words']:,}"] if has_words else []
        shown = (scores.value(first), scores.interval(first), *(scores.value(name) for name in others))
        cells = (f"{scores.rows:,}", *words, *shown)
        table.add_row(Text(cell_text(group.value)), *cells)
    print_table(table, len(groups) - MOST_GROUPS, "group")


def _print_classes(classes: "Sequence[ClassScores]") -> None:
    table = table_of("class", "rows", "predicted", "precision", "recall", "F1")
    for one in classes[:MOST_GROUPS]:
        shares = ("-" if share is None else f"{share:.2%}" for share in (one.precision, one.recall, one.f1))
        table.add_row(Text(printable(one.name)), f"{one.rows:,}", f"{one.predicted:,}", *shares)
    print_table(table, len(classes) - MOST_GROUPS, "class")


def table_of(first: str, *others: str) -> Table:
    """Return a table without rows: a first column of names, and others of numbers."""
    table = Table()
    table.add_column(Text(printable(first)), no_wrap=True, overflow="ellipsis")
    for name in others:
        table.add_column(name, justify="right")
    return table


def print_table(table: Table, left_out: int, noun: str) -> None:
    """Print a table, and the number of rows that it leaves out."""
    out.print(table, soft_wrap=False)
    if left_out > 0:
        print_folded(out, f"... and {count(left_out, f'more {noun}')}; --json lists all", 2)


def cell_text(value: object) -> str:
    """Return a value of a group or an id as text for a terminal."""
    return "-" if value is None else printable(str(value))


def print_worst(rows: "Sequence[WorstRow]", reference: str = "reference", label: str = "label") -> None:
    """Print each row with its errors and differences: on a terminal in colours and few lines, else on one line."""
    out.print(f"Worst rows, as [-{reference}-]{{+{label}+}}", style="bold", markup=False)
    if not out.is_terminal:
        for row in rows:
            out.print(f"{cell_text(row.id)}  {_errors(row)}  {differences(row).plain}", markup=False)
        return
    id_width = min(out.width // 3, max(cell_len(cell_text(row.id)) for row in rows))
    most = LINES_OF_A_ROW * (out.width - id_width - max(len(_errors(row)) for row in rows) - 4)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=id_width)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(overflow="fold")
    for row in rows:
        shown = differences(row)
        shown.truncate(most, overflow="ellipsis")
        grid.add_row(Text(cell_text(row.id)), _errors(row), shown)
    out.print(grid, soft_wrap=False)


def _errors(row: "WorstRow") -> str:
    """Return the errors of a row and the words of its reference; of a wrong class, its probability."""
    return f"{row.errors}/{len(row.reference.split())}" if row.score is None else f"{row.score:.3f}"


def differences(row: "WorstRow") -> Text:
    """Return a reference in which differing words are marked, without equal words far from a difference."""
    if not row.edits:
        return _marked(row.reference, row.hypothesis or "")
    words, place, shown = row.reference.split(), 0, Text()
    for edit in row.edits:
        shown.append(_context(words[place : edit.start], before=place == 0))
        shown.append_text(_marked(edit.reference, edit.hypothesis)).append(" ")
        place = edit.start + len(edit.reference.split())
    shown.append(_context(words[place:], after=True)).rstrip()
    return shown


def _context(words: Sequence[str], *, before: bool = False, after: bool = False) -> str:
    """Return equal words, without those in the middle if there are many; of the first and last ones an end."""
    first, last = (0 if before else CONTEXT_WORDS), (0 if after else CONTEXT_WORDS)
    if len(words) > first + last:
        words = [*words[:first], "…", *words[len(words) - last :]]
    return "".join(f"{printable(word)} " for word in words)


def _marked(reference: str, hypothesis: str) -> Text:
    """Return removed and added words with marks as of `git diff --word-diff`."""
    shown = Text()
    if reference:
        shown.append(f"[-{printable(reference)}-]", style="red")
    if hypothesis:
        shown.append(f"{{+{printable(hypothesis)}+}}", style="green")
    return shown


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
    """Print the error rates of both against references, where there are any, then the differences between both."""
    if one.against:
        out.print(
            f"{cell_text(one.column)}, A and B against {cell_text(one.against.column)}", style="bold", markup=False
        )
        _print_against(one.against)
        for column in columns:
            print_groups(column, one.against.by[column], ("wer_change", "wer_a", "wer_b"))
    out.print(f"{cell_text(one.column)}, B against A", style="bold", markup=False)
    for name, fact in one.facts.items():
        print_fact(name, fact)
    for column in columns:
        if groups := one.by[column]:
            print_groups(column, groups)
    if one.changes:
        _print_changes(one.changes)
    if one.worst:
        print_worst(one.worst, "A", "B")


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
