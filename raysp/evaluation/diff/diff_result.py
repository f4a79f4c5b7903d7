"""Result of a comparison of two labellings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from raysp.evaluation.intervals import Intervals
from raysp.evaluation.limits import Limit
from raysp.evaluation.normalising import Normalised
from raysp.evaluation.scores import TITLES, Group, Key, Scores, WorstRow
from raysp.labelling.finished.compared_columns import Kind
from raysp.labelling.finished.labellings import ShardMatch
from raysp.pages import rendering
from raysp.pages.page_tables import MOST_GROUPS, ShownRow, Table, groups_table, left_out, short, shown_row
from raysp.words import Brief, count, duration

NOT_MET, INCOMPLETE = 1, 3
SHOWN_NAMES = 3
"""Names of shards in a text."""


MOST_FACT = 300
MOST_COLUMNS = 12
MOST_TABLES = 8
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
class LowRow:
    """A row with a low cosine between its vectors."""

    id: object
    shard: str
    row: int
    seconds: float | None
    cosine: float


@dataclass(frozen=True)
class AgainstReference:
    """Error rates of both labellings against the same references."""

    column: str
    scores: Scores
    """Metrics `wer_a`, `wer_b`, `wer_change` (B less A) and those for characters, from the same bootstrap draws."""
    by: Mapping[str, tuple[Group, ...]]
    """Groups by column, those with the largest increase of the word error rate first."""

    @property
    def verdict(self) -> str:
        """The change of the word error rate, and whether it is distinguishable from none, as text."""
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
    """Metrics `wer`, `cer` and `agreement` of texts; `cosine` of vectors; `difference` of numbers; else `agreement`."""
    by: Mapping[str, tuple[Group, ...]]
    """Groups by column, the worst first; `seconds`: by bands of duration."""
    worst: tuple[WorstRow, ...] = ()
    """Texts with the most word errors, A's text as the reference; changed classes of which both were surest."""
    lowest: tuple[LowRow, ...] = ()
    """Rows with the lowest cosines."""
    changes: tuple[ClassChange, ...] = ()
    """Changes of classes, the most frequent first."""
    against: AgainstReference | None = None
    """For texts, if the label shards hold references."""

    @property
    def facts(self) -> dict[str, str]:
        """Facts of the column for users, as text by name."""
        found = {TITLES[name]: self.scores.described(name) for name in self.scores.metrics}
        if self.kind == "number":
            rose, fell = self.scores.counts["above_zero"], self.scores.counts["below_zero"]
            same = self.scores.rows - rose - fell
            found[TITLES["difference"]] += f" on average, B less A: {rose:,} rose, {fell:,} fell, {same:,} equal"
        return found


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

    def write_html(self, file: str | Path) -> str:
        """Write the comparison to a local file, as one HTML page, and return its place.

        Raises:
            StoreError: the file cannot be written.
        """
        return rendering.save(render(self), file)

    @property
    def facts(self) -> dict[str, str]:
        """Facts of the comparison for users, as text by name, without those of the columns."""
        shards, rows, rules, intervals = self.shards, self.rows, self.normalisation, self.intervals
        units = "rows" if intervals.over is None else f"the values of {intervals.over}"
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
            "rows": f"{rows.compared:,} of {count(rows.total, 'row')} compared, {duration(self.seconds)} of audio",
            "ok only in A": _by_reason(rows.only_a, "B"),
            "ok only in B": _by_reason(rows.only_b, "A"),
            "ok in neither": count(rows.neither, "row") if rows.neither else "",
            "no label row": count(rows.absent, "row") if rows.absent else "",
            "not compared": ", ".join(f"{name} ({reason})" for name, reason in self.not_compared.items()),
            "normalised": f"{rules.name}: {rules.description}" if rules else "",
            "intervals": f"{intervals.confidence:.0%}, from {intervals.draws:,} bootstrap draws of {units}",
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def all_facts(self) -> dict[str, str]:
        """Facts of the comparison and of all columns."""
        found = self.facts
        for one in self.columns:
            found |= {f"{one.column} {name}": fact for name, fact in one.facts.items()}
            if one.against:
                found[f"{one.column} {TITLES['wer_change']}"] = one.against.verdict
        return found

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
    more = f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    return f"{count(len(names), 'shard')}: {', '.join(names[:SHOWN_NAMES])}{more}" if names else ""


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
