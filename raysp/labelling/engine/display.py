"""Display of the progress of a run: a live line on a terminal or in a notebook, else a plain line every ten seconds."""

import importlib.util
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.markup import escape

from raysp.words import count, duration, folded, printable, times_real_time

if TYPE_CHECKING:
    from raysp.labelling.engine.run_progress import Progress
    from raysp.labelling.planning.run_plan import Plan

logger = logging.getLogger(__name__)

OnProgress = Callable[["Progress"], None]
OnPlan = Callable[["Plan"], None]
T = TypeVar("T")

PLAIN_LINE_SECONDS = 10.0
LIVE_SECONDS = 0.2
"""Least time between two updates of the live line: counts of all pieces in flight are summed for each."""
PARTED = " · "
SPINNER_CELLS = 2
"""Terminal cells of the spinner before the live line."""


class Display(AbstractContextManager["Display"]):
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

    def __exit__(self, *_: object) -> None:
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
            # Rows of shards that were not committed may all be staged.
            todo = (
                f"{plan.rows_todo:,} of {count(plan.num_rows, 'row')} to do"
                if plan.rows_todo or not plan.todo
                else (f"all rows of {count(len(plan.todo), 'shard')} are labelled and to be committed")
            )
            work = f"{todo}; {committed}"
        with self.drawing():
            for message in (work, *plan.messages_at_start):
                self.say(message)
        if not plan.todo:
            return
        if plan.engine == "here" and plan.code:
            self._live = None
        elif self._live:
            self.show(lambda: "loading the model ..." if plan.engine == "here" else "starting actors on Ray ...")
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

    def progress(self, progress: "Progress") -> None:
        """Show a state of the run."""
        self.check()
        self.show(lambda: progress_line(progress))

    def show(self, line: Callable[[], str]) -> None:
        """Show the line that a function returns; a narrow terminal has the first parts of it."""
        seconds = LIVE_SECONDS if self._live else PLAIN_LINE_SECONDS
        if self.is_quiet or time.monotonic() - self._last_line < seconds:
            return
        self._last_line = time.monotonic()
        with self.drawing():
            if self._live:
                self._live.update(escape(_cut(printable(line()), self.console.width - SPINNER_CELLS)))
            else:
                self.say(line())


def progress_line(progress: "Progress") -> str:
    """Return the figures of a run as one line, the most important first."""
    share, counts = progress.share, progress.counts
    eta = progress.eta_seconds if share < 1 else None
    padding, waited, errors = counts.padding_efficiency, counts.wait_share, sum(counts.errors.values())
    parts = (
        f"{share:.0%}",
        f"ETA {duration(eta)}" if eta is not None else "",
        count(errors, "error") if errors else "",
        f"{counts.rows:,}/{count(progress.rows_total, 'row')}",
        _audio(progress),
        f"RTFx {times_real_time(progress.rtfx)}",
        f"shards {progress.shards_committed:,}/{progress.shards_total:,}",
        f"padding efficiency {padding:.0%}" if padding is not None else "",
        f"model waited {waited:.0%}" if waited is not None else "",
    )
    return PARTED.join(filter(None, parts))


def _cut(line: str, width: int) -> str:
    while len(line) > width and PARTED in line:
        line = line.rpartition(PARTED)[0]
    return line


def _audio(progress: "Progress") -> str:
    """Return done and total audio; the total is an estimate from headers, until all rows are done."""
    if (total := progress.total_seconds) is None or progress.rows >= progress.rows_total:
        return f"{duration(progress.audio_seconds)} of audio"
    about = "about " if progress.begun_rows < progress.rows_total else ""
    return f"{duration(progress.audio_seconds)} of {about}{duration(total)} of audio"


def in_turn(*callbacks: Callable[[T], object] | None) -> Callable[[T], None]:
    """Return a callback that calls all that are there."""

    def call(value: T) -> None:
        for callback in filter(None, callbacks):
            callback(value)

    return call


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
    last: deque[Progress] = deque(maxlen=1)
    with Display(is_quiet=not progress) as display:
        yield in_turn(display.plan, on_plan), in_turn(last.append, display.progress, on_progress)
    if last and last[0].counts.blocks:
        with display.drawing():
            display.say(progress_line(last[0]))
