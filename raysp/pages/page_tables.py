"""Tables of a page, and rows whose texts have their differences marked."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from raysp.evaluation.scores import SECONDS, TITLES, UNDEFINED, ClassScores, Group, WorstRow, value_text
from raysp.sink.run_record import RunEntry
from raysp.words import count, printable

MOST_GROUPS = 20
"""Rows of a table of groups or classes."""
MOST_RUNS = 10
MOST_CHARACTERS = 120
"""Characters of a cell."""
MOST_TEXT = 1500
"""Characters of a row's texts."""
MOST_PARTS = 400
_STARTED = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?\+00:00")


@dataclass(frozen=True)
class Verdict:
    """A figure that a page leads with."""

    figure: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    names: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    """The first rows."""
    total: int = 0
    """Number of all rows."""
    noun: str = "row"

    @property
    def left_out(self) -> str:
        """Number of rows that are not shown, with their noun; empty if all are shown."""
        return count(self.total - len(self.rows), f"more {self.noun}") if self.total > len(self.rows) else ""


@dataclass(frozen=True)
class Part:
    """Some words of a row."""

    kind: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True)
class ShownRow:
    """A row with differences."""

    id: str
    about: str
    parts: tuple[Part, ...]
    player: str = ""
    """Recording of the row as a data url; empty: not shown."""


def short(value: object, most: int = MOST_CHARACTERS) -> str:
    """Return a value as printable text of at most `most` characters."""
    text = UNDEFINED if value is None else str(value)
    return printable(text if len(text) <= most else f"{text[: most - 1]}…")


def groups_table(column: str, groups: Sequence[Group], names: Sequence[str] = ()) -> Table:
    """Return a table of at least one group of rows.

    Args:
        column: column whose values make the groups; `SECONDS`: bands of duration.
        groups: scores of the groups.
        names: metrics, the first with its interval; none: all.
    """
    first, *other_names = names or groups[0].scores.metrics
    has_words = "words" in groups[0].scores.counts
    titles = [
        "rows",
        *(["words"] if has_words else []),
        *(TITLES.get(first, first), "95% interval"),
        *(TITLES.get(name, name) for name in other_names),
    ]
    rows = []
    for group in groups[:MOST_GROUPS]:
        scores = group.scores
        words = [f"{scores.counts['words']:,}"] if has_words else []
        more = [scores.value(name) for name in other_names]
        rows.append(
            (short(group.value), f"{scores.rows:,}", *words, scores.value(first), scores.interval(first), *more)
        )
    title, name = ("By duration", "seconds") if column == SECONDS else (f"By {short(column)}", short(column))
    return Table(title, (name, *titles), rows, len(groups), "group")


def classes_table(classes: Sequence[ClassScores]) -> Table:
    """Return a table of classes, with their numbers of rows."""
    rows = []
    for scores in classes[:MOST_GROUPS]:
        metrics = (value_text("f1", share) for share in (scores.precision, scores.recall, scores.f1))
        rows.append((short(scores.name), f"{scores.rows:,}", f"{scores.predicted:,}", *metrics))
    names = ("class", "rows", "predicted", "precision", "recall", "F1")
    return Table("Classes", names, rows, len(classes), "class")


def runs_table(
    runs: Sequence[RunEntry],
    names: Sequence[str] = (),
    figures: Callable[[RunEntry], Sequence[str]] = lambda _: (),
) -> Table:
    """Return a table of the last runs; `figures` returns the cells of the columns `names`."""
    last = runs[: -MOST_RUNS - 1 : -1]
    packages = list(dict.fromkeys(name for run in reversed(last) for name in run.versions))
    rows = [
        (when(run.started), short(run.host), *figures(run), *(short(run.versions.get(name)) for name in packages))
        for run in last
    ]
    return Table("Runs", ("began", "host", *names, *map(short, packages)), rows, len(runs), "run")


def when(started: str) -> str:
    """Return the start of a run in the time format of a page; other texts are cut."""
    match = _STARTED.fullmatch(started)
    return f"{match[1]} {match[2]} UTC" if match else short(started, 30)


def shown_row(row: WorstRow, noun: str = "error") -> ShownRow:
    """Return a row with its differences marked, and their number with a noun."""
    words = len(row.reference.split())
    errors = count(row.errors, noun) + (f" in {count(words, 'word')}" if row.score is None else "")
    score = [f"score {row.score:.3f}"] if row.score is not None else []
    seconds = [f"{row.seconds:.1f} s"] if row.seconds is not None else []
    place = [] if row.id == f"{row.shard}:{row.row}" else [f"{short(row.shard)}, row {row.row:,}"]
    about = ", ".join([errors, *score, *seconds, *place])
    return ShownRow(short(row.id), printable(about), tuple(_cut(parts_of(row))))


def _cut(parts: Sequence[Part]) -> list[Part]:
    """Return the first parts, of at most `MOST_TEXT` characters together."""
    left, shown = MOST_TEXT, list[Part]()
    for number, part in enumerate(parts):
        if len(part.text) > left or number == MOST_PARTS:
            more = sum(len(rest.text) for rest in parts[number:]) - left
            shown.append(Part(part.kind, part.text[:left]))
            shown.append(Part("same", f"… and {count(more, 'more character')}"))
            break
        shown.append(part)
        left -= len(part.text)
    return shown


def parts_of(row: WorstRow) -> list[Part]:
    """Return a reference with each differing word next to its replacement in the hypothesis."""
    if not row.edits:
        return _replaced(row.reference, row.hypothesis or "")
    words, place, parts = row.reference.split(), 0, list[Part]()
    for edit in row.edits:
        parts += _same(words[place : edit.start])
        parts += _replaced(edit.reference, edit.hypothesis)
        place = edit.start + len(edit.reference.split())
    return parts + _same(words[place:])


def _same(words: Sequence[str]) -> list[Part]:
    return [Part("same", printable(" ".join(words)))] if words else []


def _replaced(reference: str, hypothesis: str) -> list[Part]:
    removed = [Part("removed", printable(reference))] if reference else []
    return [*removed, *([Part("added", printable(hypothesis))] if hypothesis else [])]
