"""Removal of files that killed runs and trainings left in a sink."""

from dataclasses import dataclass

from raysp.sink import lease
from raysp.sink.orphans import Orphan, remove_orphans
from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.words import Brief
from raysp.work import SinkRequest, kind_of_sink


@dataclass(frozen=True, repr=False)
class Cleaning(Brief):
    """Files that `gc` found, and removed unless it was a dry run."""

    sink: str
    removed: bool
    orphans: tuple[Orphan, ...]

    @property
    def num_bytes(self) -> int:
        """Total size of the files in bytes."""
        return sum(orphan.num_bytes for orphan in self.orphans)


def gc(
    sink: str | Store,
    storage_options: GivenOptions | None = None,
    *,
    dry_run: bool = False,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Cleaning:
    """Remove files that killed runs or trainings left behind.

    Args:
        sink: url or store of the sink, of label shards or of a training.
        storage_options: options to reach it; None: options of `pipeline`, or with `trust` the recorded ones.
        dry_run: only list the files; nothing is written.
        pipeline: pipeline that made the labels; only its storage options are used.
        trust: use the recorded storage options.

    Raises:
        PlanError: there is no sink at this url, or a run is active on it.
    """
    request = SinkRequest(sink, storage_options, pipeline, trust)
    kind = kind_of_sink(request)
    store = kind.opened(request)
    if dry_run:
        lease.refuse_if_held(store)
        return Cleaning(store.url, False, tuple(kind.leftovers(store)))
    with lease.held(store) as own, lease.work_begun():
        return Cleaning(store.url, True, remove_orphans(store, own, kind.leftovers))
