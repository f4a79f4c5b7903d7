"""How a run is shown while it goes on."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from raysp.cli.console import duration, err, escape
from raysp.cli.plans import print_notes, print_pool_size, print_shortage, print_vanished
from raysp.words import count

if TYPE_CHECKING:
    from raysp.engine.progress import Progress
    from raysp.planning import Plan

PLAIN_LINE_SECONDS = 10.0


class Shown:
    """Shows a run while it goes on: one live line on a terminal, else a plain line now and then."""

    def __init__(self, quiet: bool, check: Callable[[], None]) -> None:
        self.quiet = quiet
        self.check = check
        self.status = err.status("starting Ray ...") if err.is_terminal and not quiet else None
        self.last_line = time.monotonic()

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *_: object) -> None:
        if self.status:
            self.status.stop()

    def plan(self, found: "Plan") -> None:
        """Print what is to do before the first row."""
        if self.quiet:
            return
        err.print(
            f"raysp: {found.rows_todo:,} of {count(found.num_rows, 'row')} to do; "
            f"{len(found.done):,} of {count(len(found.corpus.shards), 'shard')} committed already"
        )
        print_vanished(found.corpus.vanished)
        print_notes(found)
        print_pool_size(found)
        print_shortage(found)
        if self.status and found.todo:
            self.status.start()

    def retry(self, found: "Plan") -> None:
        """Say which rows are done again."""
        if not self.quiet:
            err.print(
                f"raysp: {count(found.rows_todo, 'error row')} to do again in {count(len(found.todo), 'label shard')}"
            )
            print_pool_size(found)
            print_shortage(found)
            if self.status and found.todo:
                self.status.start()

    def progress(self, progress: "Progress") -> None:
        """Show a state of the run; a stop that was asked for is raised here."""
        self.check()
        if self.quiet:
            return
        if self.status:
            self.status.update(escape(progress_line(progress)))
        elif time.monotonic() - self.last_line >= PLAIN_LINE_SECONDS:
            self.last_line = time.monotonic()
            err.print(f"raysp: {escape(progress_line(progress))}")


def progress_line(progress: "Progress") -> str:
    """Put a run's figures into one line."""
    share = f"{progress.rows / progress.rows_total:.0%}" if progress.rows_total else "100%"
    parts = [
        f"{progress.rows:,}/{count(progress.rows_total, 'row')} ({share})",
        f"{progress.audio_seconds / 3600:.2f} h audio",
        f"RTFx {progress.rtfx:,.0f}",
        f"shards {progress.shards_committed:,}/{progress.shards_total:,}",
    ]
    if progress.eta_seconds is not None:
        parts.append(f"ETA {duration(progress.eta_seconds)}")
    if progress.padding_efficiency is not None:
        parts.append(f"padding efficiency {progress.padding_efficiency:.0%}")
    if progress.wait_share is not None:
        parts.append(f"model waited {progress.wait_share:.0%}")
    parts.append(count(progress.num_errors, "error"))
    return " · ".join(parts)
