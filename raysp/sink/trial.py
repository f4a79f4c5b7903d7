"""Sink of a try-out, removed at its end."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from raysp.errors import StoreError
from raysp.sink import layout
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Parquet
from raysp.storage.store import join_url, normalise, scheme_of


@contextmanager
def trial_sink(sink: Parquet, *, is_shared: bool) -> Iterator[Parquet]:
    """Yield a sink for a try-out: a temporary folder, or a place below the real sink if other machines write too."""
    if not is_shared:
        with tempfile.TemporaryDirectory(prefix="raysp-") as folder:
            yield replace(sink, url=folder, storage_options={})
        return
    place = normalise(sink.url)
    lent = replace(sink, url=join_url(place, f"{layout.TRIAL}{time.time_ns()}"))
    folders = (Path(place), *Path(place).parents)
    before = None if scheme_of(place) else next(one for one in folders if one.exists())
    try:
        yield lent
    finally:
        if before is None:
            _clear(lent)
        else:
            _remove_folders(Path(lent.url), before)


def is_trial(url: str) -> bool:
    """Return whether a url is that of a try-out's sink on a cluster."""
    return f"/{layout.TRIAL}" in url


def trial_of(path: str) -> str:
    """Return the name of the try-out that a file of a sink belongs to; empty: of none."""
    name, _, rest = path.removeprefix(layout.TRIAL).partition("/")
    return name if path.startswith(layout.TRIAL) and rest else ""


def _clear(sink: Parquet) -> None:
    with suppress(StoreError):
        store = Sink.of(sink).store
        for entry in list(store.list()):
            store.delete(entry.path)


def _remove_folders(folder: Path, before: Path) -> None:
    """Remove a folder, and its empty parents below `before`, which existed earlier."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        for place in folder.parents:
            if place == before:
                break
            place.rmdir()
