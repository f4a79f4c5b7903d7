"""Names of the shards that a training began with, in `.raysp/shards.json`, so that those that are missing are named."""

import json
from collections.abc import Collection, Mapping

from raysp import bounds
from raysp.storage.store import Store
from raysp.words import count

SHARDS = ".raysp/shards.json"
MOST_NAMES = 5
"""Shards that a message names."""


def save(store: Store, names: Collection[str]) -> None:
    """Write the names, unless they are there."""
    store.create(SHARDS, json.dumps([*names]).encode())


def described_change(store: Store, names: Collection[str], unreadable: Mapping[str, str]) -> str:
    """Return which shards are missing or new since the training began, and what to do, as text.

    It is empty if there are the same shards, and if an earlier version of raysp began the training, which wrote no
    names.

    Args:
        store: the sink.
        names: the shards that can be read now.
        unreadable: those that are there and cannot be read, with the reasons.
    """
    if store.stat(SHARDS) is None:
        return ""
    begun = dict.fromkeys(map(str, bounds.parse_record(store.read(SHARDS))))
    now = {*names}
    missing = [name for name in begun if name not in now]
    new = [name for name in names if name not in begun]
    parts = []
    if missing:
        shown = [f"{name} (cannot be read: {unreadable[name]})" if name in unreadable else name for name in missing]
        parts.append(
            f"{count(len(missing), 'shard')} of the {len(begun):,} with which it began {_is(missing)} missing: "
            f"{_first(shown)}"
        )
    if new:
        parts.append(f"{count(len(new), 'shard')} {_is(new)} new: {_first(new)}")
    if not parts:
        return ""
    remedies = [*["bring the missing ones back"][: len(missing)], *["leave the new ones out"][: len(new)]]
    return (
        f"{'; '.join(parts)}. The training continues over the shards with which it began: {' and '.join(remedies)}, "
        "and run the same command again; nothing is lost. To train on others, use another sink"
    )


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _first(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
