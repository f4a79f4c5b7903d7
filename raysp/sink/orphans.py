"""Orphans: files of killed and late processes that no run or training will use any more; readers never see them.

Only `gc` removes files that rows may depend on, and it holds the lease. Of the files with rows that `rows="ok"` left
out, it removes only those that no label shard's footer names. The pipeline and input of that label shard do not matter,
nor whether its shard still exists. A worker that outlived its run may be about to commit a label shard that names such
a file. So every such file is kept until `REST_SECONDS` after it was written.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from raysp.errors import ChangedError
from raysp.sink import footer, layout, lease, plan_record, run_record, sinks
from raysp.sink.commit import committed
from raysp.sink.fencing import FencedStore
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.storage.store import Store


@dataclass(frozen=True)
class Orphan:
    """A file or an incomplete upload that no run will use any more."""

    path: str
    num_bytes: int
    reason: str


Find = Callable[..., Iterator[Orphan]]
"""A function such as `find_orphans`: it takes a store and, as `now`, a time of the store's clock."""


def find_orphans(store: Store, *, now: float | None = None, rest_seconds: float | None = None) -> Iterator[Orphan]:
    """Yield files and uploads that no run will use any more, provided that no run is active.

    Args:
        store: the sink.
        now: seconds since the epoch by the store's clock; None: by this machine's clock.
        rest_seconds: replaces `REST_SECONDS`.
    """
    record = run_record.load(store)
    if record is None:
        return
    shards = plan_record.load(store)
    file_id = hash_parts(record.file_parts)
    done, _ = committed(store, shards.values(), record.fingerprint, file_id=file_id)
    staged = {shard.name: (shard.input_id, record.staged_as) for shard in shards.values()}
    latest = (time.time() if now is None else now) - (REST_SECONDS if rest_seconds is None else rest_seconds)
    entries = list(store.list(layout.HOME))  # before the footers: a file that a footer names by then is never removed
    named = _named(store, (entry.path for entry in entries))
    # A try-out writes its beat into its own sink, by the clock of the store.
    tried = {sinks.trial_of(file.path) for file in entries if file.modified is None or file.modified > latest}
    for entry in entries:
        if rest := layout.parse_errors_path(entry.path):
            is_old = entry.modified is not None and entry.modified <= latest
            reason = REST if is_old and entry.path not in named.get(rest[0], (entry.path,)) else ""
        elif name := sinks.trial_of(entry.path):
            reason = "" if name in tried else TRIED
        else:
            reason = _reason(entry.path, staged, done)
        if reason:
            yield Orphan(entry.path, entry.num_bytes, reason)
    yield from abandoned_uploads(store)


def remove_orphans(store: Store, own: lease.Lease, find: Find = find_orphans) -> tuple[Orphan, ...]:
    """Remove files and uploads that no run will use any more.

    Args:
        store: the sink.
        own: the lease, acquired just now, so that its file has the current time of the store's clock.
        find: finds them in a sink of this kind.

    Raises:
        RunError: Another process took over the lease.
    """
    lease_file = store.stat(layout.lease_path(own.epoch))
    orphans = tuple(find(store, now=lease_file.modified if lease_file else None))
    fenced = FencedStore(store, own.epoch, own)
    for orphan in orphans:
        if orphan.reason == UPLOAD:  # of a file that no reader sees
            store.abort_upload(orphan.path)  # type: ignore[attr-defined]
        else:
            fenced.delete(orphan.path)
    return orphans


def _named(store: Store, paths: Iterable[str]) -> dict[str, Collection[str]]:
    """Return the files of left-out rows that label shards name, by shard; shards with a damaged footer are missing."""
    named: dict[str, Collection[str]] = {}
    for shard in sorted({rest[0] for path in paths if (rest := layout.parse_errors_path(path))}):
        if store.stat(shard) is None:
            named[shard] = ()
            continue
        with suppress(ChangedError):  # a damaged label shard may name any of them
            named[shard] = (footer.read(store, shard).rest_path,)
    return named


TRIED = "of a try-out that was killed"
REST = "left-out rows that no label shard refers to"
REST_SECONDS = 3600.0
"""Longest time, pauses included, between writing left-out rows and committing the label shard that names them."""
TEMPORARY = "a temporary file of a process that has ended"
UPLOAD = "an incomplete upload"
UPLOAD_SECONDS = 3600.0
"""Age from which an upload counts as abandoned if no run is active: a worker outlives its run by minutes."""


def _reason(path: str, staged: Mapping[str, tuple[str, str]], done: Collection[str]) -> str:
    """Return the reason why no run over label shards will use a file any more; empty if a run may."""
    if path.startswith(layout.TMP):
        return TEMPORARY
    if path.startswith(layout.BEGUN) and staged.keys() <= {*done}:
        return "pieces that a killed process had begun, of shards that are committed"
    if name := layout.parse_stage_path(path):
        if staged.get(name.shard) != (name.input_id, name.fingerprint):
            return "staged for another pipeline, other input, or a retry"
        return "staged for a shard that is committed" if name.shard in done else ""
    return ""


def abandoned_uploads(store: Store) -> Iterator[Orphan]:
    """Yield the multipart uploads that no process continues."""
    # Only stores with multipart uploads have this method.
    listing: Callable[[float], Iterable[str]] | None = getattr(store, "incomplete_uploads", None)
    for upload in list(listing(UPLOAD_SECONDS)) if listing else ():
        yield Orphan(upload, 0, UPLOAD)
