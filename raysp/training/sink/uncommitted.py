"""Files of killed and late processes of a training that no run will use any more."""

from collections.abc import Iterator

from raysp.sink import layout, lease
from raysp.sink.orphans import Orphan, abandoned_uploads, reason_alike
from raysp.storage.store import Store
from raysp.training.sink import committed_steps

UNCOMMITTED = "of a step that was not committed"


def leftovers(store: Store, *, now: float | None = None) -> Iterator[Orphan]:
    """Yield files and uploads that no run of a training will use any more, provided that no run is active."""
    unnamed, old_epochs = set(committed_steps.unnamed(store)), set(lease.old_epochs(store))
    for entry in store.list(layout.HOME):
        if reason := UNCOMMITTED if entry.path in unnamed else reason_alike(entry.path, old_epochs):
            yield Orphan(entry.path, entry.num_bytes, reason)
    yield from abandoned_uploads(store)
