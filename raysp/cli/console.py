"""Printing: two consoles, escaped untrusted text, facts and JSON."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape as escape_markup

from raysp.words import count, folded, printable

MOST_LINES = 20
"""Lines of a list that is the main output of a command, such as differences."""

FEW_LINES = 5
"""Lines of a secondary list, such as failed shards: together with the summary they fit on a screen."""

NAME_WIDTH = 12
"""Width in characters of the names of facts in a summary."""

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def escape(text: str) -> str:
    """Return untrusted text (names, ids, texts) without terminal control characters and with markup escaped."""
    return escape_markup(printable(text))


def say(message: str) -> None:
    """Print a message on stderr; on a terminal, lines break between words."""
    print_folded(err, f"raysp: {message}", 2)


def print_fact(name: str, fact: str, width: int = NAME_WIDTH) -> None:
    """Print a name and a fact on one line; on a terminal, lines break between words and indent to the fact."""
    print_folded(out, f"{name:{width}} {fact}", width + 1)


def print_command(name: str, command: str) -> None:
    """Print a name and a command on one unbroken line, so that it can be copied."""
    out.print(f"{name:{NAME_WIDTH}} {printable(command)}", markup=False)


def print_folded(console: Console, line: str, indent: int) -> None:
    """Print a line; on a terminal, lines break between words."""
    width = console.width if console.is_terminal else None
    console.print(folded(printable(line), width, indent), markup=False)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print a title, and below it one line per name and value, without empty values."""
    first, *lines = fact_lines(title, facts)
    out.print(f"[bold]{escape(first)}[/bold]")
    for line in lines:
        out.print(line, markup=False)


def fact_lines(title: str, facts: Mapping[str, object]) -> list[str]:
    """Return the lines of `print_facts`, folded to the width of a terminal."""
    facts = {name: value for name, value in facts.items() if value not in (None, (), [])}
    width = max(len(name) for name in facts) + 3
    lines = [printable(title)]
    for name, value in facts.items():
        shown = ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else value
        shown = f"{shown:,}" if isinstance(shown, int) and not isinstance(shown, bool) else shown
        line = printable(f"{f'  {name}':{width}} {shown}")
        lines += folded(line, out.width if out.is_terminal else None, width + 1).split("\n")
    return lines


def print_some(console: Console, lines: Sequence[str], noun: str, most: int = MOST_LINES) -> None:
    """Print the first lines and the number of the rest."""
    for line in lines[:most]:
        print_folded(console, line, 2)
    if len(lines) > most:
        print_folded(console, f"... and {count(len(lines) - most, f'more {noun}')}; --json lists all", 2)


def flat(fields: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested fields by their dotted names, without values of None."""
    found: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    # In ASCII: no control character reaches the terminal, and any locale can print it.
    print(json.dumps(value, default=str))
