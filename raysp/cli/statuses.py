"""The progress of a sink in at most ten lines."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raysp.cli.results import word_errors
from raysp.words import count, duration

if TYPE_CHECKING:
    from raysp.reading.status import Status

SHOWN_TYPES = 5


def progress_facts(found: "Status") -> dict[str, object]:
    """Return the facts that `raysp status` prints, by name."""
    begun = f", {found.shards_staged:,} more begun" if found.shards_staged else ""
    share = found.rows_committed / found.rows if found.rows else 1.0
    staged = f", {found.rows_staged:,} more labelled" if found.rows_staged else ""
    speed = f"{found.rows_per_second:.1f} rows a second" if found.rows_per_second else None
    return {
        "run": _run(found),
        "shards": f"{found.shards_committed:,} of {count(found.shards, 'shard')} committed{begun}",
        "rows": f"{found.rows_committed:,} of {count(found.rows, 'row')} committed ({share:.0%}){staged}",
        "time left": found.eta_seconds and f"{duration(found.eta_seconds)}, at {speed}",
        "audio": f"{duration(found.audio_seconds)} in committed shards" if found.audio_seconds else None,
        "labels": f"{found.ok:,} ok, {found.skipped:,} skipped, {count(found.error, 'error')}",
        "reasons": _listed({kind: f"{number:,} {kind}" for kind, number in found.errors_by_type.items()}),
        "word errors": found.word_errors and word_errors(found.word_errors),
        "failed": _listed({name: f"{name}: {reason}" for name, reason in found.failed.items()}, 1),
        "foreign": _listed({name: f"{name}: {reason}" for name, reason in found.foreign.items()}, 1),
    }


def _run(found: "Status") -> str:
    from raysp.reading.status import Running

    match found.running:
        case Running.YES:
            return f"active: {found.holder}"
        case Running.KILLED:
            return f"killed; the same command again continues: {found.holder}"
        case Running.ELSEWHERE:
            ago = (
                f", last result {duration(max(0.0, time.time() - found.last_receipt))} ago"
                if (found.last_receipt)
                else ""
            )
            return f"active or lost, not visible from this machine: {found.holder}{ago}"
    began = f"; the last one began {found.last_run.started}" if found.last_run else ""
    return f"none active{began}"


def _listed(facts: Mapping[str, str], most: int = SHOWN_TYPES) -> str | None:
    """Return the first facts and the number of the rest; None if there are none."""
    more = [f"and {len(facts) - most:,} more"] if len(facts) > most else []
    return ", ".join([*list(facts.values())[:most], *more]) or None
