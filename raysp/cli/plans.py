"""Printed form of a plan."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raysp.cli.console import FEW_LINES, err, print_fact, print_some, say
from raysp.ops.precision import AGREED_RATE

if TYPE_CHECKING:
    from raysp.labelling.planning.run_plan import Plan
    from raysp.specs.pipeline import Shards

SAMPLE_ROWS = 5


def urls(source: "Shards") -> str:
    """Return the first url of a source and the number of others."""
    urls = source.urls
    return urls[0] if len(urls) == 1 else f"{urls[0]} and {len(urls) - 1} more"


def plan_json(found: "Plan") -> dict[str, object]:
    """Return the content of `--json` for a plan."""
    settings = dataclasses.asdict(found.settings)
    return {
        "fingerprint": found.fingerprint,
        "sink": found.pipeline.sink.url,
        "shards": len(found.corpus.shards),
        "shards_committed": len(found.done),
        "shards_unreadable": dict(found.corpus.unreadable),
        "shards_vanished": list(found.corpus.vanished),
        "files_passed_over": dict(found.corpus.passed_over),
        "recordings_without_metadata": found.corpus.unnamed,
        "recordings_missing": found.corpus.missing,
        "rows": found.num_rows,
        "audio_seconds": found.corpus.seconds,
        "rows_todo": found.rows_todo,
        "pieces_todo": found.pieces_todo,
        "settings": settings,
        "actors": dataclasses.asdict(found.pool_size),
        "parts": dict(found.parts),
    }


def print_plan(found: "Plan") -> None:
    """Print a plan, with warnings on stderr."""
    for name, fact in found.facts.items():
        print_fact(name, fact)
    print_failures(found.corpus.unreadable)
    print_vanished(found.corpus.vanished)
    print_notes(found)
    print_shortage(found)
    _print_batching(found)
    if not found.todo:
        readable = " that can be read" if found.corpus.unreadable else ""
        is_any = found.corpus.shards or not found.corpus.unreadable
        print_fact("nothing to do", f"all shards{readable} are committed" if is_any else "no shard can be read")


def _print_batching(found: "Plan") -> None:
    settings = found.settings
    if settings.fingerprint_seconds is None:
        return
    if found.pipeline.label.exact or settings.checkpoint.takes_padding:
        advice = (
            f"verify --sample expects {AGREED_RATE:.0%} of rows to be equal; with dtype='float32' labels do not depend "
            "on the batch"
        )
    else:
        advice = "verify --sample, which labels rows alone, may find differences; exact=True avoids both"
    say(
        f"{settings.dtype} on {settings.device}: a label may depend on the rows that share its batch. "
        f"batch_seconds={settings.fingerprint_seconds:g} is part of the fingerprint, and {advice}"
    )


def print_pool_size(found: "Plan") -> None:
    """Print the number of actors and of their CPUs if one of them differs from the request."""
    cpus = found.settings.cpus_per_actor
    if found.todo and (found.pool_size.reason or cpus.is_capped):
        say(f"{found.pool_size}, {cpus} each")


def print_shortage(found: "Plan") -> None:
    """Print the resources that the pool requests and the cluster lacks."""
    if found.shortage and found.todo:
        say(f"the pool requests {found.shortage}: the run waits until they are available")


def print_notes(found: "Plan") -> None:
    """Print the notes of a plan."""
    for note in found.notes:
        say(note)


def print_vanished(names: tuple[str, ...]) -> None:
    """Print label shards whose shard is no longer in the source."""
    if names:
        others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        say(f"{names[0]}{others}: no longer in the source; the labels are kept")


def print_failures(failures: Mapping[str, str]) -> None:
    """Print uncommitted shards, each with its reason."""
    lines = [f"raysp: not committed: {name}: {reason}" for name, reason in failures.items()]
    print_some(err, lines, "shard", FEW_LINES)
