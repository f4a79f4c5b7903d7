"""Progress of a run, its display, and the events of its beginning and end in its log. docs/cluster.md lists all events.

The display is one live line on a terminal or in a notebook, else a plain line every ten seconds.
"""

import importlib.util
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape

from raysp.columns import OK
from raysp.ops.rows import FILTERED
from raysp.sink.receipts import FAILED, Counted, Counts
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.specs.values import JsonValue
from raysp.words import count, duration, folded, printable, times_real_time

if TYPE_CHECKING:
    from raysp.corpus.shards import Piece
    from raysp.labelling.engine.job import LabelledPiece
    from raysp.labelling.planning.run_plan import Plan

FIRST_SHARDS = 5
"""Label shards that are named for their first rows; each has at least one row that is ok."""


@dataclass(frozen=True)
class Example:
    """One error row."""

    shard: str
    row: int
    error_type: str
    message: str


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
    examples: list[Example] = field(default_factory=list)
    """A few staged error rows."""
    behind: Counts = field(default_factory=Counts)
    """Outcomes that steps after the last `Label` changed in commits; `staged` counts these rows as ok."""
    in_flight: "dict[tuple[str, Piece], LabelledPiece | None]" = field(default_factory=dict)
    """Pieces taken by workers and not staged yet, by shard and rows, as labelled so far."""
    memory_bytes: int = 0
    """Highest memory of a model's process (`ops.forward.Figures`)."""
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
        """Of all labelled rows: those staged, and those of pieces in flight."""
        in_flight = [piece.receipt.counts for piece in self._labelled()]
        return Counts.total([self.staged, self.behind, *in_flight])

    def _labelled(self) -> "list[LabelledPiece]":
        # Of a copy, since pieces are submitted in another thread.
        return [piece for piece in list(self.in_flight.values()) if piece is not None]

    @property
    def error_examples(self) -> list[Example]:
        """A few error rows; those of pieces in flight may be labelled again."""
        pieces = self._labelled()
        in_flight = [Example(piece.receipt.shard, *example) for piece in pieces for example in piece.examples]
        return [*self.examples, *in_flight]

    @property
    def begun_rows(self) -> int:
        """Rows of pieces with at least one labelled block."""
        return self.staged.rows + sum(piece.num_rows for piece in self._labelled())

    @property
    def wall_seconds(self) -> float:
        """Wall-clock seconds since the run began."""
        return time.monotonic() - self.started

    @property
    def rtfx(self) -> float:
        """Seconds of audio labelled per second of wall-clock time, the start of the run included."""
        return self.audio_seconds / max(self.wall_seconds, 1e-9)

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


logger = logging.getLogger(__name__)

OnProgress = Callable[[Progress], None]
OnPlan = Callable[["Plan"], None]

PLAIN_LINE_SECONDS = 10.0
LIVE_SECONDS = 0.2
"""Least time between two updates of the live line: counts of all pieces in flight are summed for each."""
SPINNER_CELLS = 2
"""Terminal cells of the spinner before the live line."""
LEFT_OUT = ("waited", "padding", "shards", "RTFx", "audio", "rows", "errors", "ETA")
"""Parts of the progress line, in the order in which they are left out of a narrow line."""


class Display:
    """Display of the progress of a run. An error of it is logged once; nothing more is shown, and the run goes on.

    Args:
        console: output console; None: stderr.
        is_quiet: show nothing.
        check: called before each state of the run is shown; raises if a stop was requested.
    """

    def __init__(
        self, console: Console | None = None, *, is_quiet: bool = False, check: Callable[[], None] = lambda: None
    ) -> None:
        self.check = check
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
        self.is_quiet = is_quiet
        is_notebook = self.console.is_jupyter and bool(importlib.util.find_spec("ipywidgets"))  # rich redraws by it
        self._live = self.console.status("") if (self.console.is_terminal or is_notebook) and not is_quiet else None
        self._last_line = float("-inf") if self._live else time.monotonic()

    def __enter__(self) -> Self:
        """Return the display; nothing is shown before `start`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the live line."""
        self.stop()

    def say(self, message: str) -> None:
        """Print a permanent line."""
        if not self.is_quiet:
            with self.drawing():
                width = self.console.width if self.console.is_terminal or self.console.is_jupyter else None
                self.console.print(folded(f"raysp: {printable(message)}", width), markup=False)

    def start(self) -> None:
        """Show the live line from now on."""
        if self._live:
            with self.drawing():
                self._live.start()

    def plan(self, plan: "Plan") -> None:
        """Show the work of a run; without a live line if code of the user may print or stop in a debugger here."""
        if self.is_quiet:
            return
        if plan.todo and all(todo.retry for todo in plan.todo):
            noun = "error row" if all(todo.keeps_rows for todo in plan.todo) else "row"
            work = f"{count(plan.rows_todo, noun)} to label again in {count(len(plan.todo), 'label shard')}"
        else:
            committed = f"{len(plan.done):,} of {count(len(plan.corpus.shards), 'shard')} committed already"
            work = f"{plan.rows_todo:,} of {count(plan.num_rows, 'row')} to do; {committed}"
        with self.drawing():
            for message in (work, *plan.messages_at_start):
                self.say(message)
        if not plan.todo:
            return
        if plan.engine == "here" and plan.code:
            self._live = None
        elif self._live:
            self.show(lambda _: "loading the model ..." if plan.engine == "here" else "starting actors on Ray ...")
            self.start()

    def stop(self) -> None:
        """Remove the live line, until the next `start`."""
        if self._live:
            with self.drawing():
                self._live.stop()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Show something. After an error of the display, which is logged, nothing more is shown."""
        try:
            yield
        except Exception as error:
            live, self._live, self.is_quiet = self._live, None, True
            with suppress(Exception):
                if live:
                    live.stop()
            logger.warning("progress cannot be shown, and the work goes on: %s: %s", type(error).__name__, error)

    def progress(self, progress: Progress) -> None:
        """Show a state of the run."""
        self.check()
        self.show(lambda width: progress_line(progress, width))

    def show(self, line: Callable[[int | None], str]) -> None:
        """Show a line, given as a function of its largest width in cells."""
        seconds = LIVE_SECONDS if self._live else PLAIN_LINE_SECONDS
        if self.is_quiet or time.monotonic() - self._last_line < seconds:
            return
        self._last_line = time.monotonic()
        with self.drawing():
            if self._live:
                self._live.update(escape(printable(line(self.console.width - SPINNER_CELLS))))
            else:
                self.say(line(None))


def progress_line(progress: Progress, width: int | None = None) -> str:
    """Return the figures of a run that fit into a line of this width."""
    share, counts = progress.share, progress.counts
    eta = progress.eta_seconds if share < 1 else None
    padding, waited, errors = counts.padding_efficiency, counts.wait_share, sum(counts.errors.values())
    parts = {
        "share": f"{share:.0%}",
        "ETA": f"ETA {duration(eta)}" if eta is not None else "",
        "errors": count(errors, "error") if errors else "",
        "rows": f"{counts.rows:,}/{count(progress.rows_total, 'row')}",
        "audio": _audio(progress),
        "RTFx": f"RTFx {times_real_time(progress.rtfx)}",
        "shards": f"shards {progress.shards_committed:,}/{progress.shards_total:,}",
        "padding": f"padding efficiency {padding:.0%}" if padding is not None else "",
        "waited": f"model waited {waited:.0%}" if waited is not None else "",
    }
    line = _joined(parts)
    for name in LEFT_OUT:
        if width is None or len(line) <= width:
            break
        del parts[name]
        line = _joined(parts)
    return line


def _joined(parts: Mapping[str, str]) -> str:
    return " · ".join(part for part in parts.values() if part)


def _audio(progress: Progress) -> str:
    """Return done and total audio; the total is an estimate from headers, until all rows are done."""
    if (total := progress.total_seconds) is None or progress.rows >= progress.rows_total:
        return f"{duration(progress.audio_seconds)} of audio"
    about = "about " if progress.begun_rows < progress.rows_total else ""
    return f"{duration(progress.audio_seconds)} of {about}{duration(total)} of audio"


def _ignore(_: object) -> None:
    """Do nothing with a plan or a state."""


@contextmanager
def shown(
    on_plan: OnPlan | None, on_progress: OnProgress | None, *, progress: bool
) -> Iterator[tuple[OnPlan, OnProgress]]:
    """Show a run of a program or notebook, and yield callbacks for its plan and for each state of its progress.

    Args:
        on_plan: also called with the plan.
        on_progress: also called with each state.
        progress: False shows nothing.
    """
    if not progress:
        yield on_plan or _ignore, on_progress or _ignore
        return
    last: list[Progress] = []
    with Display() as display:

        def planned(plan: "Plan") -> None:
            display.plan(plan)
            if on_plan:
                on_plan(plan)

        def went_on(state: Progress) -> None:
            last[:] = [state]
            display.progress(state)
            if on_progress:
                on_progress(state)

        yield planned, went_on
    if last and last[0].counts.blocks:
        with display.drawing():
            display.say(progress_line(last[0]))
