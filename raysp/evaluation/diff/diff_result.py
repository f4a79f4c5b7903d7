"""Result of a comparison of two labellings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raysp.evaluation.intervals import Intervals
from raysp.evaluation.limits import Limit
from raysp.evaluation.normalising import Normalised
from raysp.evaluation.scores import TITLES, Group, Key, Scores, WorstRow
from raysp.labelling.finished.compared_columns import Kind
from raysp.labelling.finished.labellings import ShardMatch
from raysp.words import count, duration, html_table

NOT_MET, INCOMPLETE = 1, 3
SHOWN_NAMES = 3
"""Names of shards in a text."""


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
class LabelDiff:
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

    def __repr__(self) -> str:
        """Return the facts of the comparison, one per line."""
        facts = [f"    {name.replace(' ', '_')}={fact!r}," for name, fact in self.all_facts.items()]
        return "\n".join(["LabelDiff(", *facts, ")"])

    def _repr_html_(self) -> str:
        """Return the facts of the comparison as a table for notebooks."""
        return html_table("LabelDiff", self.all_facts)

    def write_html(self, file: str | Path) -> str:
        """Write the comparison to a local file, as one HTML page, and return its place.

        Raises:
            StoreError: the file cannot be written.
        """
        from raysp.evaluation.diff.diff_page import render
        from raysp.pages.rendering import save

        return save(render(self), file)

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
