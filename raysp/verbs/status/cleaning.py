"""Removal of files that killed runs and trainings left in a sink."""

from dataclasses import dataclass

from raysp.labelling.planning.trust import open_recorded
from raysp.sink import lease
from raysp.sink.orphans import Orphan, find_orphans, remove_orphans
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.training.sink.training_record import is_training
from raysp.words import brief, brief_html


@dataclass(frozen=True, repr=False)
class Cleaning:
    """Files that `gc` found, and removed unless it was a dry run."""

    sink: str
    removed: bool
    orphans: tuple[Orphan, ...]

    def __repr__(self) -> str:
        """Return a text that fits on a screen."""
        return brief(self)

    def _repr_html_(self) -> str:
        """Return the fields as a table for notebooks."""
        return brief_html(self)

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
        storage_options: options to reach it; None: those of `pipeline`, or the recorded ones if they may be used.
        dry_run: only list the files; nothing is written.
        pipeline: pipeline that made the labels; only its storage options are used.
        trust: use the recorded storage options, regardless of who recorded them.

    Raises:
        PlanError: there is no sink at this url, or a run is active on it.
    """
    opened = Sink.open(sink, storage_options)
    if pipeline is not None or not is_training(opened.store):
        opened, _ = open_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    if dry_run:
        lease.refuse_if_held(opened.store)
        return Cleaning(opened.url, False, tuple(find_orphans(opened.store)))
    with lease.held(opened.store) as own:
        return Cleaning(opened.url, True, remove_orphans(opened.store, own))
