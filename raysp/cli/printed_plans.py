"""Printed form of plans, and the display of a run, which begins with the remaining work."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from raysp.cli.console import FEW_LINES, err, print_fact, print_some, printing, say
from raysp.labelling.engine.display import Display
from raysp.words import count

if TYPE_CHECKING:
    from raysp.labelling.engine.run_progress import Progress
    from raysp.labelling.planning.run_plan import Plan
    from raysp.specs.pipeline import Shards
    from raysp.work import PlanPart

FIRST_ROWS = 5


def urls(source: "Shards") -> str:
    """Return the first url of a source and the number of others."""
    urls = source.urls
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"


def show_indexed(display: Display, done: int, num_shards: int) -> None:
    """Show how many shards are indexed; called before each of the others."""
    display.show(lambda _: f"indexed {done:,} of {count(num_shards, 'shard')}")
    display.start()


def print_part(part: "PlanPart") -> None:
    """Print a part of a plan, with its sentences on stderr."""
    for name, fact in part.facts:
        print_fact(name, fact)
    print_failures(part.failures)
    for message in part.messages:
        say(message)


def print_failures(failures: Mapping[str, str]) -> None:
    """Print uncommitted shards, each with its reason."""
    lines = [f"raysp: not committed: {name}: {reason}" for name, reason in failures.items()]
    print_some(err, lines, "shard", FEW_LINES)


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
