"""Printed form of plans: parts of what `raysp plan` shows, the urls of a source, and shards that cannot be read."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raysp.cli.console import FEW_LINES, err, print_fact, print_some, say

if TYPE_CHECKING:
    from raysp.specs.pipeline import Shards
    from raysp.work import PlanPart

SAMPLE_ROWS = 5


def urls(source: "Shards") -> str:
    """Return the first url of a source and the number of others."""
    urls = source.urls
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"


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
