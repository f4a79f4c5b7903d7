"""Result of an evaluation."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from raysp.evaluation.comparing import Task
from raysp.evaluation.intervals import Intervals
from raysp.evaluation.limits import Limit
from raysp.evaluation.scores import SECONDS, TITLES, ClassScores, Group, Scores, WorstRow
from raysp.labelling.engine.run_result import RunResult
from raysp.text.error_rates import Normalised
from raysp.words import Brief, count, duration

NOT_MET, INCOMPLETE = 1, 3
LIMITS = "limits"
"""Name of the fact on all limits."""


@dataclass(frozen=True)
class RowCounts:
    """Rows of an evaluation, each counted once."""

    total: int
    compared: int
    without_reference: int
    """Rows whose reference is null."""
    skipped: Mapping[str, int]
    """Rows with a reference that the steps skipped, by reason."""
    errors: Mapping[str, int]
    """Rows with a reference that could not be labelled, by error type."""
    uncommitted: int
    """Rows with a reference of shards that could not be read or committed."""

    @property
    def not_compared(self) -> tuple[str, ...]:
        """Rows that are not compared, by reason, as text."""
        without = {"without a reference": self.without_reference, "in shards that failed": self.uncommitted}
        return (
            *(f"{number:,} {reason}" for reason, number in without.items() if number),
            *(f"{number:,} skipped ({kind})" for kind, number in self.skipped.items()),
            *(f"{count(number, 'error')} ({kind})" for kind, number in self.errors.items()),
        )


@dataclass(frozen=True, repr=False)
class EvaluationResult(Brief):
    """Result of an evaluation; `dataclasses.asdict` converts it for JSON."""

    checkpoint: str
    checkpoint_digest: str
    """Hash of weights, configuration and tokenizer."""
    source: tuple[str, ...]
    """Urls of the shards."""
    first_rows: int | None
    """Number of rows asked for; None: all."""
    task: Task
    column: str
    """Column of the references."""
    normalisation: Normalised | None
    """None for classes and speakers, which are compared as they are."""
    rows: RowCounts
    scores: Scores
    by: Mapping[str, tuple[Group, ...]]
    """Groups by column, the worst first; `seconds`: by bands of duration."""
    classes: tuple[ClassScores, ...]
    """Scores of each class, the worst first; empty for texts and speakers."""
    worst: tuple[WorstRow, ...]
    """Empty for speakers."""
    intervals: Intervals
    limits: tuple[Limit, ...]
    labels: str | None
    """Sink with the labels; None: they were not kept."""
    run: RunResult
    not_kept: tuple[str, ...] = ()
    """Compared columns that the labels lack, since an earlier evaluation made them."""

    @property
    def facts(self) -> dict[str, str]:
        """Facts of the evaluation for users, as text by name."""
        rows, metrics, rules = self.rows, self.scores.metrics, self.normalisation
        first = f" (at most the first {self.first_rows:,})" if self.first_rows is not None else ""
        facts = {
            "checkpoint": f"{self.checkpoint} ({self.checkpoint_digest})",
            "rows": f"{rows.compared:,} of {count(rows.total, 'row')}{first} compared with the column {self.column}, "
            f"{duration(self.scores.seconds or 0.0)} of audio",
            "not compared": ", ".join(rows.not_compared),
            **{TITLES[name]: self.scores.described(name) for name in metrics},
            "normalised": f"{rules.name}: {rules.description}" if rules else "",
            "intervals": self.intervals.words,
            LIMITS: "; ".join(limit.words for limit in self.limits),
            "labels": self._labels,
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def next_commands(self) -> dict[str, str]:
        """Commands that go on with the labels, by what they do; none if the labels were not kept."""
        if self.labels is None:
            return {}
        by = "".join(f" --by {shlex.quote(name)}" for name in self.by if name != SECONDS and name not in self.not_kept)
        sink = shlex.quote(self.labels)
        return {"report": f"raysp report {sink}", "compare": f"raysp diff {sink} OTHER{by}"}

    @property
    def _labels(self) -> str:
        lacking = f", without {', '.join(self.not_kept)} (an earlier evaluation made them; another sink keeps all)"
        return f"{self.labels or ''}{lacking if self.not_kept else ''}"

    @property
    def nothing_compared(self) -> str:
        """Reason why there is no metric: no row, or no pair of speakers of a kind; empty if there is one."""
        if not self.rows.compared:
            return f"no row was compared: {', '.join(self.rows.not_compared)}"
        if self.task == "verification" and self.scores.metrics["eer"].value is None:
            return f"EER is undefined: found {self.scores.pairs}, expected some of both; evaluate more rows of speakers"
        return ""

    @property
    def exit_code(self) -> int:
        """Exit code: 3 if a shard failed or nothing was compared, else 1 if a limit is not met, else 0."""
        if self.run.exit_code or self.nothing_compared:
            return INCOMPLETE
        return 0 if all(limit.is_met for limit in self.limits) else NOT_MET
