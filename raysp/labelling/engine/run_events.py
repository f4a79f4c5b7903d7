"""Events of a run, in its log (`sink.run_log`). docs/cluster.md lists them with their fields."""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.specs.values import JsonValue

if TYPE_CHECKING:
    from raysp.labelling.engine.job import PieceTodo
    from raysp.labelling.engine.messages import LabelledPiece
    from raysp.labelling.engine.run_progress import Progress
    from raysp.labelling.planning.run_plan import Plan

ROWS_A_TYPE = 100
"""Error rows of each type in the log; the label shards have all of them."""


class RunEvents:
    """Adds the events of a run to its log.

    Args:
        log: log of the run.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._rows: Counter[str] = Counter()

    def planned(self, plan: "Plan") -> None:
        """Add the plan: the amount of work, and what is committed already."""
        self._log.event(
            "planned",
            sink=plan.pipeline.sink.url,
            fingerprint=plan.fingerprint,
            shards=len(plan.corpus.shards),
            shards_committed=len(plan.done),
            shards_unreadable=len(plan.corpus.unreadable),
            rows=plan.rows_todo,
            pieces=plan.pieces_todo,
        )

    def started(self, entry: RunEntry, plan: "Plan") -> None:
        """Add the start of the run, with its command, versions, settings and machine."""
        resources = asdict(plan.resources)
        self._log.event(
            "started",
            command=entry.command,
            host=entry.host,
            platform=platform.platform(),
            versions=dict(entry.versions),
            settings=dict(entry.resolved),
            resources=resources,
        )

    def actor_started(self, actor: str, node: str) -> None:
        """Add an actor that has loaded its model."""
        self._log.event("actor_started", actor=actor, node=node)

    def actor_lost(self, actor: str, node: str) -> None:
        """Add an actor whose process or node ended while the run needed it."""
        self._log.event("actor_lost", actor=actor, node=node)

    def actor_released(self, actor: str, node: str) -> None:
        """Add an actor that ended because there was no work for it."""
        self._log.event("actor_released", actor=actor, node=node)

    def actor_failed(self, reason: str) -> None:
        """Add an actor that could not load its model."""
        self._log.event("actor_failed", reason=reason)
        self._log.write_soon()

    def waiting(self, message: str) -> None:
        """Add that no worker can start because the cluster is busy."""
        self._log.event("waiting", message=message)
        self._log.write_soon()

    def piece_failed(self, todo: "PieceTodo") -> None:
        """Add a piece that crashed workers, whose rows are now searched for the ones at fault."""
        self._log.event("piece_failed", shard=todo.name, first=todo.part.first, end=todo.part.end)
        self._log.write_soon()

    def rows_blamed(self, piece: "LabelledPiece") -> None:
        """Add error rows of a piece, up to `ROWS_A_TYPE` of each type."""
        for row, kind, message in piece.examples:
            self._rows[kind] += 1
            if self._rows[kind] <= ROWS_A_TYPE:
                self._log.event("row_blamed", shard=piece.receipt.shard, row=row, error_type=kind, message=message)

    def finished(self, progress: "Progress", failed: Mapping[str, str]) -> None:
        """Add the totals of a run that came to its end."""
        self._log.event("finished", shards_failed=len(failed), **_totals(progress))

    @contextmanager
    def ending(self, progress: "Progress") -> Iterator[None]:
        """Add why the block ended, if by an exception: `draining` on a signal, else `failed`."""
        try:
            yield
        except Exception as error:
            self._log.event("failed", reason=str(error), error=type(error).__name__, **_totals(progress))
            self._log.write_soon()
            raise
        except BaseException as stop:  # Ctrl-C or SIGTERM
            self._log.event("draining", signal=type(stop).__name__.strip("_"), **_totals(progress))
            self._log.write_soon()
            raise


def _totals(progress: "Progress") -> dict[str, JsonValue]:
    efficiency, wait_share = progress.padding_efficiency, progress.wait_share
    return {
        "shards_committed": progress.new_commits,
        "rows": progress.rows,
        "errors": dict(progress.errors),
        "skipped": dict(progress.skipped),
        "audio_seconds": round(progress.audio_seconds, 3),
        "wall_seconds": round(progress.wall_seconds, 3),
        "rtfx": round(progress.rtfx, 3),
        "padding_efficiency": None if efficiency is None else round(efficiency, 4),
        "wait_share": None if wait_share is None else round(wait_share, 4),
    }
