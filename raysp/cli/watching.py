"""The display of a status that is repeated: in place on a terminal, otherwise a line for each change."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from raysp.cli.console import fact_lines, out, print_facts, print_folded, printing, say

if TYPE_CHECKING:
    from raysp.verbs.watching import Watch
    from raysp.work import Progress

WATCH, SECONDS = "--watch", "5"
"""Option that may have a value, and its value if it has none."""
LOST = (
    "the run has not written a heartbeat for a minute: it is lost, or cannot reach its sink; run again to continue it"
)


def with_seconds(arguments: Sequence[str]) -> list[str]:
    """Return arguments of a command in which `--watch` has a value."""
    found: list[str] = []
    for place, one in enumerate(arguments):
        found.append(one)
        if one == WATCH and not _is_number("".join(arguments[place + 1 : place + 2])):
            found.append(SECONDS)
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def watch(states: "Watch", *, is_quiet: bool) -> "Progress":
    """Show the states of a sink until its runs have ended, and return the last one."""
    if is_quiet:
        *_, last = states
    elif out.is_terminal:
        last = _in_place(states)
    else:
        last = _lines(states)
        with printing():
            print_facts(last.sink, last.facts)
    if states.is_lost:
        say(LOST)
    return last


def _in_place(states: "Watch") -> "Progress":
    with Live(console=out, auto_refresh=False) as live:
        for found in states:
            with printing():
                live.update(_text(found.sink, found.facts), refresh=True)
    return found


def _text(title: str, facts: Mapping[str, object]) -> Text:
    first, *others = fact_lines(title, facts)
    return Text("\n").join([Text(first, style="bold"), *map(Text, others)])


def _lines(states: "Watch", now: Callable[[], str] = lambda: time.strftime("%H:%M:%S")) -> "Progress":
    before = ""
    for found in states:
        with printing():
            if (line := found.line) != before:
                print_folded(out, f"{now()} {line}", 2)
            before = line
    return found
