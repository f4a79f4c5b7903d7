"""The exported checkpoint at the root of a sink: files of one training, or a folder that nothing loads.

Its files cannot be replaced in one step. So the two without which no reader loads a folder, `config.json` and the
weights, are first replaced by a note that is neither, and they are put last. A process that is killed in between leaves
a folder that does not load. The notes are not removals: a suspended process would not notice that a file was removed
and made again, but it notices another version.

The record of the checkpoint, `.raysp/export.json`, is written after the notes. It names the training of the
files, and their complete sizes.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from raysp import bounds
from raysp.errors import RunError, StoreError
from raysp.sink import records
from raysp.sink.fencing import FencedStore
from raysp.sink.records import Natural
from raysp.storage.store import Store
from raysp.training.sink import committed_steps
from raysp.training.sink.training_record import EXPORT

logger = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Files of which one is necessary to load weights: the only one, or the index of several."""
FREE = ("README.md",)
"""Files that users may change: the checkpoint stays whole."""
NOTE = b"raysp: a checkpoint is being exported here; if no training is running, run the same command again\n"


@dataclass(frozen=True)
class Export:
    """Content of export.json."""

    fingerprint: str
    """Fingerprint of the recipe."""
    state: str
    """Digest of the committed steps that the weights come from."""
    epoch: Natural
    """Epoch of the lease of the run that exported it."""
    files: Mapping[str, Natural]
    """Sizes of the files by name."""
    earlier: Sequence[str] = ()
    """Files of earlier exports that this one lacks; they are removed."""

    @classmethod
    def load(cls, store: Store) -> "Export | None":
        """Return the record; None if there is none, or none that can be read."""
        if store.stat(EXPORT) is None:
            return None
        try:
            return records.parse(store.read(EXPORT), cls)
        except ValueError as error:
            logger.warning(
                "%s/%s: not the record of an exported checkpoint (%s)", store.url, EXPORT, bounds.plain(error)
            )
            return None

    def is_whole(self, store: Store) -> bool:
        """Return whether all files are there as they were exported, by their sizes."""
        entries = {name: store.stat(name) for name in self.files if name not in FREE}
        return all(entry is not None and entry.num_bytes == self.files[name] for name, entry in entries.items())


def is_exported(store: Store, fingerprint: str, state: str) -> bool:
    """Return whether the checkpoint of a training, with the weights of some commits, is at the root already."""
    export = Export.load(store)
    return export is not None and (export.fingerprint, export.state) == (fingerprint, state) and export.is_whole(store)


def state_of(store: Store, done: int, best: int | None) -> str:
    """Return the digest of the committed weights that a training ends with; empty if they are not committed.

    Args:
        store: the sink.
        done: number of its last step.
        best: number of the step of its best evaluation; None without one.
    """
    chosen = [best] if best is not None else []
    try:
        committed = {number: committed_steps.load(store, number) for number in sorted({done, *chosen})}
    except (RunError, StoreError):
        return ""
    files = [(f"{number}/{name}", file) for number, step in committed.items() for name, file in step.files.items()]
    digests = sorted((f"best {chosen} {name}", file.sha256) for name, file in files)
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def publish(
    store: FencedStore, files: Mapping[str, int], put: Callable[[str], None], *, fingerprint: str, state: str
) -> None:
    """Publish the files of a checkpoint at the root of a sink, in the place of an earlier export.

    Args:
        store: the sink.
        files: sizes of the files by name.
        put: publishes the file of a name, in the place of an earlier one.
        fingerprint: fingerprint of the recipe.
        state: digest of the committed steps that the weights are of.

    Raises:
        RunError: another run took over the lease.
        StoreError: the sink cannot be written.
    """
    last = [CONFIG, *(name for name in WEIGHTS if name in files)]
    before = Export.load(store)
    earlier = {*before.files, *before.earlier, *WEIGHTS} if before else {*WEIGHTS}
    obsolete = sorted(earlier - {*files})
    for name in (CONFIG, *WEIGHTS):
        if name in files or store.stat(name) is not None:
            store.replace(name, NOTE)
    # After the notes: files of another training may have the same sizes.
    record = Export(fingerprint, state, store.epoch, dict(files), obsolete)
    store.replace(EXPORT, json.dumps(asdict(record)).encode())
    for name in sorted({*files} - {*last}):
        put(name)
    for name in obsolete:
        if store.stat(name) is not None:
            store.delete(name)
    # Last: until both are there no reader loads the folder.
    for name in last:
        put(name)
