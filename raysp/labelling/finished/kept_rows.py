"""Rows and hours that come into each `Keep` step, are left out by each of its conditions, and are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

from raysp.errors import SpecError
from raysp.sink.receipts import OTHERS, Counts, Rules, ShardReceipt, rules_of_steps, summed
from raysp.sink.run_record import RunRecord
from raysp.specs.steps import Keep
from raysp.specs.values import JsonValue
from raysp.words import count, duration

OTHER_STEPS = "other steps"


@dataclass(frozen=True)
class LeftOut:
    """Rows that a condition leaves out: the first condition that they do not meet."""

    rule: str
    """The condition, such as `min_seconds=1.0`; empty for steps other than `Keep`."""
    rows: int
    seconds: float
    """Decoded audio of these rows; 0 where the step comes before `Decode`."""

    @property
    def sentence(self) -> str:
        """The rows, their audio, and the condition."""
        audio = duration(self.seconds) if self.seconds else "not decoded"
        return f"{self.rows:,} by {self.rule or 'them'} ({audio})" if self.rows else f"0 by {self.rule}"


@dataclass(frozen=True)
class KeptRows:
    """Rows of the committed shards at one `Keep` step.

    Rows that fail, or that are skipped for another reason, count as kept: no condition left them out.
    """

    step: str
    """The step, such as `steps.1`; the last one may be "other steps": your own steps that filter, `source.labels`."""
    rows: int
    """Rows that come in: all, less those that earlier `Keep` steps left out."""
    seconds: float
    """Decoded audio of these rows."""
    left_out: tuple[LeftOut, ...]
    kept: int
    kept_seconds: float

    @property
    def sentence(self) -> str:
        """Numbers of rows kept, of rows that came in, and of rows left out by each condition."""
        out = ", ".join(condition.sentence for condition in self.left_out)
        audio = f", {duration(self.kept_seconds)} of {duration(self.seconds)} decoded" if self.seconds else ""
        return f"{self.step}: {self.kept:,} of {count(self.rows, 'row')}{audio}; left out {out}"


def kept_rows(rules: Rules, receipts: Sequence[ShardReceipt]) -> tuple[KeptRows, ...]:
    """Return the rows of label shards at each `Keep` step, in the order of the steps; empty if no step filters.

    Args:
        rules: conditions of the steps.
        receipts: counts of the label shards.
    """
    filtered = summed(chain.from_iterable(receipt.filtered.items() for receipt in receipts))
    counts = sum((receipt.counts for receipt in receipts), Counts())
    rows, seconds = counts.rows, counts.audio_seconds
    of_steps: list[KeptRows] = []
    steps: dict[str, list[LeftOut]] = {}
    for place, rule in rules.items():
        out = LeftOut(rule.text, *filtered.get(place, (0, 0.0)))
        steps.setdefault(".".join(place.split(".")[:2]), []).append(out)
    if OTHERS in filtered:
        steps[OTHER_STEPS] = [LeftOut("", *filtered[OTHERS])]
    for step, left_out in steps.items():
        kept = rows - sum(condition.rows for condition in left_out)
        kept_seconds = seconds - sum(condition.seconds for condition in left_out)
        of_steps.append(KeptRows(step, rows, seconds, tuple(left_out), kept, kept_seconds))
        rows, seconds = kept, kept_seconds
    return tuple(of_steps)


def recorded_rules(record: RunRecord) -> Rules:
    """Return the conditions of the recorded `Keep` steps; nothing that the record names is imported."""
    return rules_of_steps([_keep(step) for step in record.steps])


def _keep(step: Mapping[str, JsonValue]) -> object:
    """Return a recorded `Keep` step; None for other steps, and for one of another version of raysp."""
    if step.get("type") != Keep.__name__:
        return None
    fields = cast("dict[str, Any]", {name: value for name, value in step.items() if name != "type"})
    try:
        return Keep(**fields)  # it has plain values alone, so that no class is looked up by its recorded name
    except SpecError:
        return None
