"""What killed and late processes leave in a sink that nothing will use any more; readers never see any of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from raysp.errors import PlanError
from raysp.io.store import Store, open_store
from raysp.pipeline import fingerprint as hash_parts
from raysp.sink import footer, layout, lease, plan_record, run_record
from raysp.sink.commit import committed


@dataclass(frozen=True)
class Orphan:
    """A file, or an upload that was never completed, that nothing will use any more."""

    path: str
    num_bytes: int
    reason: str


@dataclass(frozen=True)
class Cleaning:
    """What `gc` found, and removed unless it was a dry run."""

    sink: str
    removed: bool
    orphans: tuple[Orphan, ...]

    @property
    def num_bytes(self) -> int:
        """Add up their sizes."""
        return sum(orphan.num_bytes for orphan in self.orphans)


def gc(sink: str | Store, storage_options: Mapping[str, object] | None = None, *, dry_run: bool = False) -> Cleaning:
    """Remove what killed runs left behind.

    Args:
        sink: where label shards are.
        storage_options: how to reach the storage.
        dry_run: only list it; nothing is written.

    Raises:
        PlanError: there is no sink at the place, or a living run is at work on it.
    """
    store = open_store(sink, storage_options) if isinstance(sink, str) else sink
    if run_record.load(store) is None:
        raise PlanError(f"{store.url}: no sink of raysp (it has no {layout.RUN}); give the folder that a run wrote to")
    if dry_run:
        lease.refuse_if_held(store)
        return Cleaning(store.url, False, tuple(find_orphans(store)))
    with lease.held(store) as own:
        orphans = tuple(find_orphans(store))
        for orphan in orphans:
            own.check()
            _remove(store, orphan)
    return Cleaning(store.url, True, orphans)


def find_orphans(store: Store) -> Iterator[Orphan]:
    """List what no run will use any more, as long as none is at work."""
    record = run_record.load(store)
    if record is None:
        return
    shards = {shard.name: shard for shard in plan_record.load(store)}
    file_id = hash_parts(record.file_parts)
    found = committed(store, shards.values(), record.fingerprint, mend=False, file_id=file_id)
    wanted = {shard.name: (shard.input_id, record.fingerprint) for shard in shards.values()}
    old_epochs = set(lease.old_epochs(store))
    rested = {rest[0] for entry in store.list(layout.ERRORS) if (rest := layout.parse_errors_path(entry.path))}
    rest_ids = {name: footer.read(store, name).rest_id for name in rested & found.done}
    for entry in store.list(layout.HOME):
        if reason := _reason(entry.path, wanted, found.done, found.foreign.keys(), old_epochs, rest_ids):
            yield Orphan(entry.path, entry.num_bytes, reason)
    for upload in _uploads(store):
        yield Orphan(upload, 0, UPLOAD)


UPLOAD = "an upload that was never completed"
UPLOAD_SECONDS = 3600.0
"""After so long nobody is still at an upload whose sink no run is at work on: a worker outlives its run by minutes."""


def _reason(
    path: str,
    wanted: Mapping[str, tuple[str, str]],
    done: Iterable[str],
    foreign: Iterable[str],
    old_epochs: Iterable[str],
    rest_ids: Mapping[str, str],
) -> str:
    """Say why nothing will use a file any more; empty when something may."""
    if path.startswith(layout.TMP):
        return "a temporary file of a process that is gone"
    if path in old_epochs:
        return "an old epoch of the lease"
    if block := layout.parse_stage_path(path):
        if wanted.get(block.shard) != (block.input_id, block.fingerprint):
            return "staged for another pipeline, other input or a retry that was left"
        return "staged for a shard that is committed" if block.shard in done else ""
    if marker := layout.parse_done_path(path):
        return _of_another(marker, wanted) or ("a marker without its label shard" if marker[0] in foreign else "")
    if rest := layout.parse_errors_path(path):
        return "" if rest_ids.get(rest[0]) == rest[3] else "rows beside a label shard that has been replaced since"
    return ""


def _of_another(found: tuple[str, str, str], wanted: Mapping[str, tuple[str, str]]) -> str:
    return "" if wanted.get(found[0]) == found[1:] else "of another pipeline or other input"


def _uploads(store: Store) -> list[str]:
    # Only stores that upload in parts know of any.
    listing: Callable[[float], Iterable[str]] | None = getattr(store, "incomplete_uploads", None)
    return list(listing(UPLOAD_SECONDS)) if listing else []


def _remove(store: Store, orphan: Orphan) -> None:
    if orphan.reason == UPLOAD:
        store.abort_upload(orphan.path)  # type: ignore[attr-defined]
    else:
        store.delete(orphan.path)
