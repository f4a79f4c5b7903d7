"""Display of a run on the command line: remaining work, then progress."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from raysp.cli.console import err, printing, say
from raysp.labelling.engine.display import Display
from raysp.words import count

if TYPE_CHECKING:
    from raysp.labelling.engine.run_progress import Progress
    from raysp.labelling.planning.run_plan import Plan


class Shown(Display):
    """A display that first prints the remaining work, and raises a requested stop.

    Args:
        is_quiet: print nothing.
        check: called at each state of the run; raises if a stop was requested.
    """

    def __init__(self, is_quiet: bool, check: Callable[[], None]) -> None:
        super().__init__(err, is_quiet=is_quiet)
        self.check = check

    def plan(self, found: "Plan") -> None:
        """Print the remaining work, before the first row."""
        self.say(
            f"{found.rows_todo:,} of {count(found.num_rows, 'row')} to do; "
            f"{len(found.done):,} of {count(len(found.corpus.shards), 'shard')} committed already"
        )
        self._begin(found)

    def retry(self, found: "Plan") -> None:
        """Print the number of rows that are labelled again."""
        shards = count(len(found.todo), "label shard")
        self.say(f"{count(found.rows_todo, 'error row')} to label again in {shards}")
        self._begin(found)

    def _begin(self, found: "Plan") -> None:
        if self.is_quiet:
            return
        with printing():
            for message in found.messages_at_start:
                say(message)
        if found.todo:
            self.start()

    def progress(self, progress: "Progress") -> None:
        """Show a state of the run, and raise a requested stop."""
        self.check()
        super().progress(progress)
