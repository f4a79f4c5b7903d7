"""Names of places for cards, which are published: they show no path of the machine that made them."""

import re

from raysp.specs.values import JsonValue

_OF_A_MACHINE = re.compile(r"^(?:(?:file|local)://|[/~\\]|\.\.[/\\]|[A-Za-z]:[/\\])", re.IGNORECASE)
"""Begins of urls and paths that name folders of a machine, and so often a user."""


def place_name(place: str) -> str:
    """Return the last part of a local path that is absolute or leads upwards; other places unchanged."""
    if not _OF_A_MACHINE.match(place):
        return place
    return re.split(r"[/\\]", place.rstrip("/\\"))[-1]


def with_place_names(value: JsonValue) -> JsonValue:
    """Return a value of JSON in which local paths are names."""
    if isinstance(value, dict):
        return {key: with_place_names(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_place_names(one) for one in value]
    return place_name(value) if isinstance(value, str) else value
