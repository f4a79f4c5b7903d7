"""Removal of what killed runs left in a sink."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysp.planning.trust import open_recorded
from raysp.sink import lease
from raysp.sink.orphans import Orphan, find_orphans, remove_orphans
from raysp.specs.pipeline import Pipeline
from raysp.storage.store import Store
from raysp.words import brief


@dataclass(frozen=True, repr=False)
class Cleaning:
    """What `gc` found, and removed unless it was a dry run."""

    sink: str
    removed: bool
    orphans: tuple[Orphan, ...]

    def __repr__(self) -> str:
        """Return a screen at most."""
        return brief(self)

    @property
    def num_bytes(self) -> int:
        """Add up their sizes."""
        return sum(orphan.num_bytes for orphan in self.orphans)


def gc(
    sink: str | Store,
    storage_options: Mapping[str, object] | None = None,
    *,
    dry_run: bool = False,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Cleaning:
    """Remove what killed runs left behind.

    Args:
        sink: where label shards are.
        storage_options: how to reach it; None: those of `pipeline`, or as recorded where that may be used.
        dry_run: only list it; nothing is written.
        pipeline: that made the labels; only its storage options are used.
        trust: reach the sink by the recorded options, whoever recorded them.

    Raises:
        PlanError: there is no sink at the place, or a living run is at work on it.
    """
    store, _ = open_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    if dry_run:
        lease.refuse_if_held(store)
        return Cleaning(store.url, False, tuple(find_orphans(store)))
    with lease.held(store) as own:
        return Cleaning(store.url, True, remove_orphans(store, own))
