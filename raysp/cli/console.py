"""Printing: two consoles, text from strangers made harmless, facts and JSON."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape as escape_markup

from raysp.words import count, folded, printable

MOST_LINES = 20
"""Of a list that a command was asked for, such as differences."""

FEW_LINES = 5
"""Of a list beside other things, such as shards that failed: with the summary below them they fit a screen."""

NAME_WIDTH = 12
"""Of names of facts in a summary."""

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def escape(text: str) -> str:
    """Make what strangers wrote (names, ids, texts) harmless: it must neither steer the terminal nor be markup."""
    return escape_markup(printable(text))


def say(message: str) -> None:
    """Print a message on stderr, on a terminal broken between words."""
    print_folded(err, f"raysp: {message}", 2)


def print_fact(name: str, fact: str, width: int = NAME_WIDTH) -> None:
    """Print a name and a fact in a line, on a terminal broken between words below the fact's beginning."""
    print_folded(out, f"{name:{width}} {fact}", width + 1)


def print_command(name: str, command: str) -> None:
    """Print a name and a command in one line, so that it can be copied whole."""
    out.print(f"{name:{NAME_WIDTH}} {printable(command)}", markup=False)


def print_folded(console: Console, line: str, indent: int) -> None:
    """Print a line, on a terminal broken between words."""
    width = console.width if console.is_terminal else None
    console.print(folded(printable(line), width, indent), markup=False)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print a title and a name with its value on each line below it."""
    out.print(f"[bold]{escape(title)}[/bold]")
    facts = {name: value for name, value in facts.items() if value not in (None, (), [])}
    width = max(len(name) for name in facts) + 3
    for name, value in facts.items():
        shown = ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else value
        shown = f"{shown:,}" if isinstance(shown, int) and not isinstance(shown, bool) else shown
        print_fact(f"  {name}", str(shown), width)


def print_some(console: Console, lines: Sequence[str], noun: str, most: int = MOST_LINES) -> None:
    """Print the first lines, and how many more there are."""
    for line in lines[:most]:
        print_folded(console, line, 2)
    if len(lines) > most:
        print_folded(console, f"... and {count(len(lines) - most, f'more {noun}')}; --json lists all", 2)


def flat(fields: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Join the names of nested fields with dots, and leave out what is None."""
    found: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found


def print_json(value: object) -> None:
    """Print one JSON object on stdout."""
    # In ASCII, so that no control character of a text reaches a terminal, and any locale can print it.
    print(json.dumps(value, default=str))
