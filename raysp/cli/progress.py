"""How a run is shown on the command line: what is to do, then its progress."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from raysp.cli.console import err
from raysp.cli.plans import print_notes, print_pool_size, print_shortage, print_vanished
from raysp.engine.display import Display
from raysp.words import count

if TYPE_CHECKING:
    from raysp.engine.progress import Progress
    from raysp.planning.plans import Plan


class Shown(Display):
    """A display that says first what is to do, and raises a stop that was asked for.

    Args:
        is_quiet: print nothing.
        check: called at each state of the run; raises where it is to stop.
    """

    def __init__(self, is_quiet: bool, check: Callable[[], None]) -> None:
        super().__init__(err, is_quiet=is_quiet)
        self.check = check

    def plan(self, found: "Plan") -> None:
        """Print what is to do before the first row."""
        self.say(
            f"{found.rows_todo:,} of {count(found.num_rows, 'row')} to do; "
            f"{len(found.done):,} of {count(len(found.corpus.shards), 'shard')} committed already"
        )
        self._begin(found)

    def retry(self, found: "Plan") -> None:
        """Print which rows are done again."""
        shards = count(len(found.todo), "label shard")
        self.say(f"{count(found.rows_todo, 'error row')} to do again in {shards}")
        self._begin(found)

    def _begin(self, found: "Plan") -> None:
        if self.is_quiet:
            return
        print_vanished(found.corpus.vanished)
        print_notes(found)
        print_pool_size(found)
        print_shortage(found)
        if found.todo:
            self.start()

    def progress(self, progress: "Progress") -> None:
        """Show a state of the run; a stop that was asked for is raised here."""
        self.check()
        super().progress(progress)
