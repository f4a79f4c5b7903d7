"""Counts of the rows of a label shard: by status and type, by the conditions of `Keep` steps, and word errors."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import ERROR, OK, SKIPPED
from raysp.corpus.shards import Shard
from raysp.errors import RunError
from raysp.ops.rows import FILTERED
from raysp.ops.step_ops import Rule
from raysp.sink.receipts import Counts, ShardReceipt
from raysp.sink.word_errors import TextColumns, WordErrors
from raysp.specs.steps import Keep

OTHERS = ""
"""Place of the rows that another step leaves out."""

Rules = Mapping[str, Rule]
"""Conditions by their places, such as `steps.0.where.1`, in the order of the steps."""

Filtered = dict[str, tuple[int, float]]
"""Filtered rows, and seconds of their decoded audio, by the place of a condition."""


def rules_of_steps(steps: Sequence[object]) -> Rules:
    """Return the conditions of those steps of a pipeline that are `Keep`."""
    return {
        f"steps.{number}.{rule.place}": rule
        for number, step in enumerate(steps)
        if isinstance(step, Keep)
        for rule in step.rules
    }


def summed(counts: Iterable[tuple[str, tuple[int, float]]]) -> Filtered:
    """Return the sums of rows and seconds by place."""
    sums: Filtered = {}
    for place, (rows, seconds) in counts:
        before = sums.get(place, (0, 0.0))
        sums[place] = before[0] + rows, before[1] + seconds
    return dict(sorted(sums.items()))


@dataclass
class Tally:
    """Counts over the rows added."""

    counts: Counts = field(default_factory=Counts)
    texts: TextColumns | None = None
    word_errors: WordErrors = field(default_factory=WordErrors)
    rules: Rules = field(default_factory=dict)
    filtered: Filtered = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    """Rows by a status that no row has."""

    def add(self, table: pa.Table) -> None:
        """Count a table's rows."""
        seconds = pc.sum(table.column("seconds"), min_count=0).as_py() or 0.0
        reasons: dict[str | None, Counter[str]] = {ERROR: Counter(), SKIPPED: Counter()}
        for status, reason in zip(*(table.column(name).to_pylist() for name in ("status", "error_type")), strict=True):
            if status in reasons:
                reasons[status][reason or ""] += 1
            elif status != OK:
                self.unknown[str(status)] += 1
        self.counts += Counts(table.num_rows, audio_seconds=seconds, errors=reasons[ERROR], skipped=reasons[SKIPPED])
        rows = table.filter(pc.equal(table.column("error_type"), pa.scalar(FILTERED)))
        messages, durations = (rows.column(name).to_pylist() for name in ("error_message", "seconds"))
        new = ((self._place(str(one)), (1, time or 0.0)) for one, time in zip(messages, durations, strict=True))
        self.filtered = summed([*self.filtered.items(), *new])
        if self.texts is not None:
            self.word_errors.count(table, self.texts)

    def _place(self, message: str) -> str:
        """Return the place of the first condition that a filtered row does not meet."""
        overlaps = {place: rule.overlap(message) for place, rule in self.rules.items()}
        place = max(overlaps, key=overlaps.__getitem__, default=OTHERS)
        return place if overlaps.get(place) else OTHERS

    def receipt(self, shard: Shard) -> ShardReceipt:
        """Return the receipt of a shard whose rows were all added.

        Raises:
            RunError: rows are missing or have an unknown status.
        """
        if self.counts.rows != shard.num_rows or self.unknown:
            statuses = {**self.counts.by_status, **self.unknown}
            raise RunError(
                f"shard {shard.name!r}: {self.counts.rows} rows with status {statuses}, expected {shard.num_rows} "
                "rows that are ok, skipped or error; this is a bug in raysp: report it with the plan"
            )
        return ShardReceipt(shard.name, self.counts, word_errors=self.word_errors.to_counts(), filtered=self.filtered)
