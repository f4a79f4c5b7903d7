"""Events of the beginning and the end of a run in its log. docs/cluster.md lists all events with their fields."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from raysp.sink.receipts import FAILED
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.specs.values import JsonValue

if TYPE_CHECKING:
    from raysp.labelling.engine.run_progress import Progress
    from raysp.labelling.planning.run_plan import Plan


def begun(log: RunLog, entry: RunEntry, plan: "Plan") -> None:
    """Add the plan, with what is committed already, and the start of the run on its machine."""
    log.event(
        "planned",
        sink=plan.pipeline.sink.url,
        fingerprint=plan.fingerprint,
        shards=len(plan.corpus.shards),
        shards_committed=len(plan.done),
        shards_unreadable=len(plan.corpus.unreadable),
        rows=plan.rows_todo,
        pieces=plan.pieces_todo,
    )
    log.event(
        "started",
        command=entry.command,
        host=entry.host,
        platform=platform.platform(),
        versions=dict(entry.versions),
        settings=dict(entry.resolved),
        resources=asdict(plan.resources),
    )


@contextmanager
def ending(log: RunLog, progress: "Progress") -> Iterator[None]:
    """Add why the block ended, if by an exception: `draining` on a signal, else `failed`."""
    try:
        yield
    except Exception as error:
        log.urgent_event(FAILED, reason=str(error), error=type(error).__name__, **totals(progress))
        raise
    except BaseException as stop:  # Ctrl-C or SIGTERM
        log.urgent_event("draining", signal=type(stop).__name__.strip("_"), **totals(progress))
        raise


def totals(progress: "Progress") -> dict[str, JsonValue]:
    """Return the totals of a run, by the names of fields of its last event."""
    names = ("rows", "errors", "skipped", "audio_seconds", "wall_seconds", "rtfx", "padding_efficiency", "wait_share")
    values = {name: getattr(progress, name) for name in names}
    values = {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
    return {"shards_committed": progress.new_commits, **values}
