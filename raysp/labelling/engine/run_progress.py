"""Progress of a run, and the events of its beginning and end in its log. docs/reference/columns.md lists all events."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from raysp.columns import OK
from raysp.ops.rows import FILTERED
from raysp.sink.receipts import FAILED, Counted, Counts
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.specs.values import JsonValue

if TYPE_CHECKING:
    from raysp.corpus.shards import Piece
    from raysp.labelling.engine.job import LabelledPiece, RowError
    from raysp.labelling.planning.run_plan import Plan

FIRST_SHARDS = 5
"""Label shards that are named for their first rows; each has at least one row that is ok."""


@dataclass
class Progress(Counted):
    """Counts since the start of the run; seconds are wall-clock time unless described as audio."""

    rows_total: int
    """Rows of the pieces that this run has to label."""
    shards_total: int
    shards_committed: int = 0
    """Shards committed by this run or before."""
    staged: Counts = field(default_factory=Counts)
    """Of staged rows. They never decrease: a later run does not label these rows again."""
    committed: Counts = field(default_factory=Counts)
    """Of the shards committed by this run, without retried shards."""
    examples: "list[RowError]" = field(default_factory=list)
    """A few staged error rows."""
    behind: Counts = field(default_factory=Counts)
    """Outcomes that steps after the last `Label` changed in commits; `staged` counts these rows as ok."""
    in_flight: "dict[tuple[str, Piece], LabelledPiece | None]" = field(default_factory=dict)
    """Pieces taken by workers and not staged yet, by shard and rows, as labelled so far."""
    memory_bytes: int = 0
    """Highest memory of a model's process (`ops.labelling.Figures`)."""
    new_commits: int = 0
    """Shards committed by this run."""
    unchanged: int = 0
    """Shards of `new_commits` whose label shard existed and was not replaced."""
    first_shards: list[str] = field(default_factory=list)
    """First label shards by name that this run wrote with rows that are ok, at most `FIRST_SHARDS`."""
    started: float = field(default_factory=lambda: time.monotonic())
    _first: tuple[float, int, float] | None = None

    @property
    def counts(self) -> Counts:  # type: ignore[override]
        """Counts of all labelled rows, staged or in flight."""
        return Counts.total(self._parts())

    @property
    def rows_and_errors(self) -> tuple[int, int]:
        """Numbers of labelled rows and of error rows in `counts`, without its other sums."""
        parts = self._parts()
        return sum(part.rows for part in parts), sum(sum(part.errors.values()) for part in parts)

    def _parts(self) -> list[Counts]:
        return [self.staged, self.behind, *(piece.receipt.counts for piece in self._labelled())]

    def _labelled(self) -> "list[LabelledPiece]":
        # Of a copy, since pieces are submitted in another thread.
        return [piece for piece in list(self.in_flight.values()) if piece is not None]

    @property
    def error_examples(self) -> "list[RowError]":
        """A few error rows; rows of pieces in flight may be labelled again."""
        return [*self.examples, *(example for piece in self._labelled() for example in piece.examples)]

    @property
    def begun_rows(self) -> int:
        """Rows of pieces with at least one labelled block."""
        return self.staged.rows + sum(piece.num_rows for piece in self._labelled())

    @property
    def wall_seconds(self) -> float:  # type: ignore[override]
        """Wall-clock seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def unlabelled(self) -> dict[str, int]:
        """Rows by `error_type` if no row was labelled and not all were filtered out; else empty."""
        kinds = self.counts.by_type or self.committed.by_type
        is_labelled = self.counts.by_status[OK] or self.committed.by_status[OK]
        return {} if is_labelled or not kinds.keys() - {FILTERED} else kinds

    @property
    def total_seconds(self) -> float | None:
        """Estimated seconds of audio of all rows to label, from the mean of begun pieces; None: unknown.

        Of these pieces, labelled rows count as decoded, and others by the headers of their recordings.
        """
        seconds = self.audio_seconds + sum(piece.seconds_left for piece in self._labelled())
        rows = self.begun_rows
        return seconds * max(self.rows_total, rows) / rows if seconds and rows else None

    @property
    def share(self) -> float:
        """Share of the work that is done: of the audio if its duration is known, else of the rows."""
        if total := self.total_seconds:
            return min(1.0, self.audio_seconds / total)
        return self.rows / self.rows_total if self.rows_total else 1.0

    @property
    def eta_seconds(self) -> float | None:
        """Estimated seconds left, from the speed since the first block; None before there is an estimate."""
        if self._first is None:
            return None
        since, rows, seconds = self._first
        total = self.total_seconds
        done, left = (
            (self.audio_seconds - seconds, total - self.audio_seconds)
            if total
            else (self.rows - rows, self.rows_total - self.rows)
        )
        return max(left, 0) * (time.monotonic() - since) / done if done > 0 else None

    def add(self, labelled: "LabelledPiece") -> None:
        """Count a piece in place of its earlier counts."""
        if labelled.is_staged:
            self.in_flight.pop(labelled.place, None)
            self.staged += labelled.receipt.counts
        else:
            self.in_flight[labelled.place] = labelled
        self.memory_bytes = max(self.memory_bytes, labelled.memory_bytes)
        # The estimate starts here: the time to start Ray and load the model is not a measure of the speed.
        self._first = self._first or (time.monotonic(), self.rows, self.audio_seconds)


def begun(log: RunLog, entry: RunEntry, plan: "Plan") -> None:
    """Log the plan, with the shards committed already, and the start of the run on its machine."""
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
    """Log the exception that ended the block: `draining` for a signal, else `failed`."""
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
