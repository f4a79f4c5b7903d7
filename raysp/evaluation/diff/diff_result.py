"""Result of a comparison of two labellings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from raysp.evaluation.diff.players import played
from raysp.evaluation.intervals import Intervals
from raysp.evaluation.limits import Limit
from raysp.evaluation.scores import SECONDS, TITLES, Group, Key, Scores, WorstRow
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.label_columns import Kind
from raysp.labelling.finished.labellings import ShardMatch
from raysp.labelling.planning.trust import Recorded, read_recorded
from raysp.pages import rendering
from raysp.pages.forest import Forest, forest
from raysp.pages.page_tables import (
    MOST_GROUPS,
    ShownRow,
    Table,
    Verdict,
    groups_table,
    short,
)
from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.text.error_rates import Normalised
from raysp.words import Brief, count, duration, listed
from raysp.work import SinkRequest

NOT_MET, INCOMPLETE = 1, 3
SHOWN_NAMES = 3
"""Names of shards in a text."""


CHANGES = ("wer_change", "wer_a", "wer_b")
"""Metrics of groups against references."""
MOST_FACT = 300
MOST_COLUMNS = 12
MOST_TABLES = 8
MOST_DRAWN = 8
"""Groups of a column whose differences are drawn."""
PLAYER_BYTES = 3_000_000
"""Bytes of all recordings in a page."""
MOST_WORST = 20
"""Rows that are shown of each column."""


@dataclass(frozen=True)
class Side:
    """One of two labellings."""

    sink: str
    fingerprint: str
    checkpoint: str | None
    checkpoint_digest: str | None
    """Hash of weights, configuration and tokenizer."""


@dataclass(frozen=True)
class RowMatch:
    """Rows of the compared shards by their outcome in two labellings, each counted once."""

    total: int
    compared: int
    """Rows that are ok in both."""
    only_a: Mapping[str, int]
    """Rows that are ok in A, by their error type or reason of skipping in B; the most frequent first."""
    only_b: Mapping[str, int]
    """Rows that are ok in B, by their error type or reason of skipping in A."""
    neither: int
    """Rows that are ok in neither."""
    absent: int
    """Rows that one of the label shards lacks although its plan has them."""


@dataclass(frozen=True)
class ClassChange:
    """Rows with one class in A and another one in B."""

    a: Key
    b: Key
    rows: int


@dataclass(frozen=True)
class AgainstReference:
    """Error rates of both labellings against the same references."""

    column: str
    scores: Scores
    """Metrics `wer_a`, `wer_b`, `wer_change` (B less A), and `cer_...`, from the same bootstrap draws."""
    by: Mapping[str, tuple[Group, ...]]
    """Groups by column, the largest increase of the word error rate first."""

    @property
    def table(self) -> Table:
        """Error rates of both labellings and their differences."""
        rows = []
        for title, end in (("A", "_a"), ("B", "_b"), ("B less A", "_change")):
            names = [f"{rate}{end}" for rate in ("wer", "cer")]
            shown = (text for name in names for text in (self.scores.value(name), self.scores.interval(name)))
            rows.append((title, *shown))
        column = short(self.column)
        titles = (f"against {column}", "WER", "95% interval", "CER", "95% interval")
        return Table(f"Against the references in {column}", titles, rows)

    @property
    def verdict(self) -> str:
        """The change of the word error rate as text, with a judgement whether it is distinguishable from 0."""
        change, shown = self.scores.metrics["wer_change"], self.scores.described("wer_change")
        if change.low is None or change.high is None:
            return f"{shown}: too few rows for an interval"
        if change.low <= 0 <= change.high:
            return f"{shown}: the interval includes 0, so neither is clearly better"
        return f"{shown}: {'A' if change.low > 0 else 'B'} is better"


@dataclass(frozen=True)
class ColumnDifference:
    """Differences in one output column."""

    column: str
    kind: Kind
    scores: Scores
    """Metrics `wer`, `cer` and `agreement` of texts, else `agreement`."""
    by: Mapping[str, tuple[Group, ...]]
    """Groups by column, the worst first; `seconds`: by bands of duration."""
    worst: tuple[WorstRow, ...] = ()
    """Texts with the most word errors, A's text as the reference; changed classes of which both were surest."""
    changes: tuple[ClassChange, ...] = ()
    """Changes of classes, the most frequent first."""
    against: AgainstReference | None = None
    """Error rates of texts against the references that the label shards hold; None without references."""

    @property
    def changes_table(self) -> Table:
        """Changes of classes."""
        rows = [(short(change.a), short(change.b), f"{change.rows:,}") for change in self.changes[:MOST_GROUPS]]
        return Table("Changed classes", ("class in A", "class in B", "rows"), rows, len(self.changes), "change")

    @property
    def facts(self) -> dict[str, str]:
        """Facts of the column for users, as text by name."""
        return {TITLES[name]: self.scores.described(name) for name in self.scores.metrics}


@dataclass(frozen=True, repr=False)
class LabelDiff(Brief):
    """Differences between two labellings of a corpus, A and B; `dataclasses.asdict` converts it for JSON."""

    a: Side
    b: Side
    shards: ShardMatch
    rows: RowMatch
    seconds: float
    """Seconds of audio of the compared rows."""
    columns: tuple[ColumnDifference, ...]
    not_compared: Mapping[str, str]
    """Output columns that are not compared, with the reason."""
    normalisation: Normalised | None
    """Normalisation of texts; None if no texts are compared."""
    intervals: Intervals
    limits: tuple[Limit, ...]

    def write_html(
        self,
        file: str | Path,
        storage_options: GivenOptions | None = None,
        *,
        pipeline: Pipeline | None = None,
        trust: bool = False,
    ) -> str:
        """Write the comparison to a local file, as one HTML page, and return its place.

        Rows that differ have players with `pipeline` or `trust`, as far as the page has room.

        Args:
            file: the file.
            storage_options: options to reach A; None: options of `pipeline`, or with `trust` the recorded ones.
            pipeline: pipeline that made the labels of A, whose recordings are read.
            trust: use the recorded pipeline of A.

        Raises:
            StoreError: the file cannot be written, or A cannot be read.
        """
        recorded = read_recorded(SinkRequest(self.a.sink, storage_options, pipeline, trust))
        return rendering.save(render(self, recorded), file)

    @property
    def facts(self) -> dict[str, str]:
        """Facts of the comparison for users, as text by name, without facts of the columns."""
        shards, rows, rules = self.shards, self.rows, self.normalisation
        facts = {
            "A": _side(self.a),
            "B": _side(self.b),
            "shards": f"{count(len(shards.compared), 'shard')} compared",
            "only in A": _named(shards.only_a),
            "only in B": _named(shards.only_b),
            "other input": _named(shards.other_input),
            "unfinished": ", ".join(
                f"{_named(names)} of {side}"
                for side, names in (("A", shards.unfinished_a), ("B", shards.unfinished_b))
                if names
            ),
            "foreign": listed([*shards.foreign_a.values(), *shards.foreign_b.values()], 1) or "",
            "rows": f"{rows.compared:,} of {count(rows.total, 'row')} compared, {duration(self.seconds)} of audio",
            "ok only in A": _by_reason(rows.only_a, "B"),
            "ok only in B": _by_reason(rows.only_b, "A"),
            "ok in neither": count(rows.neither, "row") if rows.neither else "",
            "no label row": count(rows.absent, "row") if rows.absent else "",
            "not compared": ", ".join(f"{name} ({reason})" for name, reason in self.not_compared.items()),
            "normalised": f"{rules.name}: {rules.description}" if rules else "",
            "intervals": self.intervals.words,
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def all_facts(self) -> dict[str, str]:
        """Facts of the comparison and of all columns."""
        facts = self.facts
        for difference in self.columns:
            if difference.against:
                facts[f"{difference.column} {TITLES['wer_change']}"] = difference.against.verdict
            facts |= {f"{difference.column} {name}": fact for name, fact in difference.facts.items()}
        return facts

    @property
    def exit_code(self) -> int:
        """Exit code: 3 if no row was compared, else 1 if a limit is not met, else 0."""
        if not self.rows.compared:
            return INCOMPLETE
        return 0 if all(limit.is_met for limit in self.limits) else NOT_MET


def _side(side: Side) -> str:
    made = f", labels of {side.checkpoint} ({side.checkpoint_digest})" if side.checkpoint else ""
    return f"{side.sink}{made}"


def _named(names: tuple[str, ...]) -> str:
    return f"{count(len(names), 'shard')}: {listed(names, SHOWN_NAMES)}" if names else ""


def _by_reason(rows: Mapping[str, int], other: str) -> str:
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in rows.items())
    return f"{count(sum(rows.values()), 'row')}; in {other} {reasons}" if rows else ""


@dataclass(frozen=True)
class _Shown:
    """A column with its differences."""

    name: str
    facts: dict[str, str]
    tables: tuple[Table, ...]
    worst: tuple[ShownRow, ...]
    changes: Forest | None = None


def render(diff: LabelDiff, recorded: Recorded | None = None) -> str:
    """Return a comparison as HTML.

    Args:
        diff: the comparison.
        recorded: sink A with the pipeline that may be used, for players; None: recordings may not be read.
    """
    rows, left, note = diff.rows, PLAYER_BYTES, ""
    shards = Labelling.of(recorded.sink, recorded.record).shards if recorded else {}
    columns: list[_Shown] = []
    for column in diff.columns[:MOST_COLUMNS] if rows.compared else ():
        shown = played(shards, recorded, column.worst[:MOST_WORST], left, "difference")
        left -= sum(len(row.player) for row in shown.rows)
        note = shown.note or note
        columns.append(_shown(column, shown.rows))
    return rendering.render(
        "diff.html",
        title=f"A: {_name(diff.a.sink)}, B: {_name(diff.b.sink)}",
        subtitle=f"{rows.compared:,} of {rows.total:,} rows compared, {duration(diff.seconds)} of audio",
        verdict=_verdict(diff) if rows.compared else (),
        facts={_capital(name): short(fact, MOST_FACT) for name, fact in diff.facts.items()},
        sides=f"A is {_name(diff.a.sink)}, B is {_name(diff.b.sink)}.",
        columns=columns,
        players_note=note,
        limits=[short(limit.words) for limit in diff.limits],
    )


def _verdict(diff: LabelDiff) -> tuple[Verdict, ...]:
    """Return the leading figures of the page: of the first column with references, else of the first column."""
    column = next((column for column in diff.columns if column.against), diff.columns[0] if diff.columns else None)
    if column is None:
        return ()
    if against := column.against:
        scores = against.scores
        names = (("A", "wer_a", _name(diff.a.sink)), ("B", "wer_b", _name(diff.b.sink)))
        rates = [Verdict(scores.value(key), f"word errors of {side}", name) for side, key, name in names]
        change = Verdict(scores.value("wer_change"), "B less A", against.verdict.partition(": ")[2])
        return (*rates, change)
    name, scores = next(iter(column.scores.metrics)), column.scores
    return (Verdict(scores.value(name), f"{short(column.column)}: {_title(name)}", f"{scores.rows:,} rows"),)


def _title(metric: str) -> str:
    """Return the name of a metric with its sides."""
    return f"{TITLES[metric]}{' of A and B' if metric == 'agreement' else ', B against A'}"


def _name(sink: str) -> str:
    return short(sink.rstrip("/").rpartition("/")[2] or sink)


def _capital(name: str) -> str:
    return f"{name[:1].upper()}{name[1:]}"


def _shown(difference: ColumnDifference, worst: tuple[ShownRow, ...]) -> _Shown:
    titles = {TITLES[name]: _capital(_title(name)) for name in difference.scores.metrics}
    facts = {titles[name]: short(fact, MOST_FACT) for name, fact in difference.facts.items()}
    if difference.against:
        facts["WER change, B less A"] = difference.against.verdict
    changes = _forest(difference.against) if difference.against else None
    return _Shown(short(difference.column), facts, tuple(_tables(difference)), worst, changes)


def _forest(against: AgainstReference) -> Forest | None:
    """Return the drawn differences of all rows and of groups."""
    shown = [("all rows", against.scores)]
    for column, groups in [*against.by.items()][:MOST_TABLES]:
        unit = " s" if column == SECONDS else ""
        shown += [(f"{short(group.value)}{unit}", group.scores) for group in groups[:MOST_DRAWN]]
    note = "of the same rows, 95% intervals; left of the line B is better, right of it A"
    return forest("Difference, B less A", note, "wer_change", shown)


def _tables(difference: ColumnDifference) -> Iterator[Table]:
    if difference.against:
        yield difference.against.table
    for column, groups in [*difference.against.by.items()][:MOST_TABLES] if difference.against else ():
        if groups:
            table = groups_table(column, groups, CHANGES)
            names = tuple("WER, B less A" if name == TITLES["wer_change"] else name for name in table.names)
            yield replace(table, names=names, title=f"{table.title}, against the references")
    for column, groups in [*difference.by.items()][:MOST_TABLES]:
        if groups:
            table = groups_table(column, groups)
            sides = {TITLES[name]: _title(name) for name in difference.scores.metrics}
            yield replace(table, names=tuple(sides.get(name, name) for name in table.names))
    if difference.changes:
        yield difference.changes_table
