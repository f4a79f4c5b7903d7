"""Printing: two consoles, text from strangers made harmless, facts and JSON."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape as escape_markup

from raysp.words import count, printable

MOST_LINES = 20
"""Of one kind, such as shards that failed: with the summary below them they fit a screen."""

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def escape(text: str) -> str:
    """Make what strangers wrote (names, ids, texts) harmless: it must neither steer the terminal nor be markup."""
    return escape_markup(printable(text))


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print a title and a name with its value on each line below it."""
    out.print(f"[bold]{escape(title)}[/bold]")
    facts = {name: value for name, value in facts.items() if value not in (None, (), [])}
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        shown = ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else value
        shown = f"{shown:,}" if isinstance(shown, int) and not isinstance(shown, bool) else shown
        out.print(f"  {escape(name):{width}}  {escape(str(shown))}")


def print_some(console: Console, lines: Sequence[str], noun: str) -> None:
    """Print the first lines, and how many more there are."""
    for line in lines[:MOST_LINES]:
        console.print(line)
    if len(lines) > MOST_LINES:
        console.print(f"... and {count(len(lines) - MOST_LINES, f'more {noun}')}; --json lists all")


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
