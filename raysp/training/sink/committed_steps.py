"""Committed steps of a training: the files of its state, and one marker that names them.

A step is committed when its marker exists. `.raysp/steps/<done>.json` is created, if absent, after all files of the
step were written below `.raysp/steps/<done>.<id>/`. A marker is removed before its files. So the files of a marker are
whole, unless something else damages them: then a training goes back to the step before, and replaces the marker when
it is there again. A folder that no marker names was left by a process that ended early, or belongs to one that is
writing it.

All is written through a `FencedStore`: a run ends at the marker of a run that took over. A process that is suspended
while another run restarts the training can add a marker when it wakes. Its files were removed by the restart, so it is
like a damaged one.
"""

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

from raysp import bounds
from raysp.errors import RunError, StoreError
from raysp.sink import fault_injection, layout, records
from raysp.sink.fencing import FencedStore, replace_version
from raysp.sink.layout import HOME
from raysp.sink.orphans import TEMPORARY, Orphan, abandoned_uploads
from raysp.sink.records import AnyFloat, Natural
from raysp.storage.store import Store, explained

log = logging.getLogger(__name__)

STEPS = f"{HOME}steps/"
LAST_COMMITS = 2
"""Commits that always stay: if the last commit cannot be read, a training continues from the previous one."""

_MARKER = re.compile(rf"{re.escape(STEPS)}(\d+)\.json")
_FILE = re.compile(rf"{re.escape(STEPS)}(\d+)\.[0-9a-f]+/[^/]+")

Writer = Callable[[Path], None]
"""Callable that writes a file to a local path."""


@dataclass(frozen=True, slots=True)
class StateFile:
    """A file of a committed step."""

    path: str
    num_bytes: Natural
    sha256: str


@dataclass(frozen=True, slots=True)
class Position:
    """Progress of a training."""

    done: Natural
    """Updates of the weights so far, over all epochs."""
    epoch: Natural
    """Number of the epoch, from 0."""
    step: Natural
    """Next step of the epoch, from 0."""


@dataclass(frozen=True, slots=True)
class CommittedStep:
    """Content of a marker."""

    position: Position
    fingerprint: str
    """Fingerprint of the recipe."""
    index: str
    """Digest of the index of rows."""
    num_workers: Natural
    """Workers that took part in the step."""
    files: Mapping[str, StateFile]
    metrics: Mapping[str, AnyFloat] = field(default_factory=dict)
    """Last values by name, such as the loss."""
    epoch: Natural = 0
    """Epoch of the lease that its run held."""
    measure: str = ""
    """How the best value among the metrics was measured; empty without one."""


def commit(store: FencedStore, step: CommittedStep, writers: Mapping[str, Writer]) -> CommittedStep:
    """Write the files of a step, then its marker, and return it as it is committed.

    If a run of this training has committed the step already and its files are whole, that commit is kept: training
    computes the same state again. A damaged one, and one of an earlier training, is replaced.

    Args:
        store: the sink.
        step: the step, without its files.
        writers: functions that write the files, by name.

    Raises:
        RunError: another run took over the lease.
    """
    # A folder of its own: a run that was suspended may still be writing the same step.
    folder = f"{STEPS}{step.position.done}.{uuid.uuid4().hex}/"
    with fault_injection.passing("step_written"):
        files = {name: _write(store, f"{folder}{name}", write) for name, write in writers.items()}
    with fault_injection.passing("step_committed"):
        return _mark(store, replace(step, files=files, epoch=store.epoch))


def _mark(store: FencedStore, step: CommittedStep) -> CommittedStep:
    """Create the marker of a step and return it, or an existing whole marker of the same training."""
    path, data = _marker(step.position.done), json.dumps(asdict(step)).encode()
    while not store.create(path, data):
        # Its version is read before its content, so that a marker that changes in between is not replaced.
        if (entry := store.stat(path)) is None:  # removed meanwhile
            continue
        store.check()
        marker = _parsed(store, step.position.done)
        is_same = marker and (marker.fingerprint, marker.index) == (step.fingerprint, step.index)
        if marker and is_same and not _damaged(store, marker):
            return marker
        if replace_version(store, path, data, expected=entry.version):
            log.warning("%s: %s was damaged or of an earlier training; it was replaced", store.url, path)
            break
    return step


def _write(store: FencedStore, path: str, write: Writer) -> StateFile:
    with store.scratch() as scratch:
        with explained("write", scratch):
            write(scratch)
        file = StateFile(path, scratch.stat().st_size, _sha256(scratch))
        store.publish(scratch, path)
    return file


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(store: Store, done: int) -> CommittedStep:
    """Read a marker.

    Raises:
        RunError: it cannot be parsed.
        StoreError: it cannot be read, or was removed.
    """
    path = _marker(done)
    data = store.read(path)
    try:
        return records.parse(data, CommittedStep)
    except ValueError as error:
        raise RunError(f"{store.url}: committed step {path} cannot be parsed ({bounds.plain(error)})") from error


def _parsed(store: Store, done: int) -> CommittedStep | None:
    """Return a marker, or None if it cannot be parsed or was removed meanwhile."""
    try:
        return load(store, done)
    except RunError:
        return None
    except StoreError:
        if store.stat(_marker(done)) is not None:
            raise
        return None


def _markers(store: Store) -> Iterator[tuple[int, CommittedStep | None, list[str]]]:
    """Yield markers, the last step first, with the files that are missing or incomplete; None if it is not parsed."""
    sizes = {entry.path: entry.num_bytes for entry in store.list(STEPS)}
    for done in sorted(_committed(sizes), reverse=True):
        step = _parsed(store, done)
        files = step.files.values() if step else ()
        yield done, step, [file.path for file in files if sizes.get(file.path) != file.num_bytes]


def latest(store: Store, *, checks: bool = False) -> CommittedStep | None:
    """Return the last step of which all files are whole; None without one.

    Logs a warning for each later step that is damaged.

    Args:
        store: the sink.
        checks: whether the content of the files is compared too, not only their sizes.

    Raises:
        StoreError: a marker cannot be read, which may be temporary, so no earlier step is taken in its place.
    """
    for done, step, broken in _markers(store):
        if step is None:
            reason = f"{_marker(done)} cannot be parsed"
        elif broken := broken or (_damaged(store, step) if checks else []):
            reason = f"step {done} has missing, incomplete or changed files ({', '.join(broken)})"
        else:
            return step
        log.warning("%s: %s; going back to the committed step before it", store.url, reason)
    return None


def _damaged(store: Store, step: CommittedStep) -> list[str]:
    """Return the files of a step that do not have the content that was written."""
    return [file.path for file in step.files.values() if not _is_as_written(store, file)]


def _is_as_written(store: Store, file: StateFile) -> bool:
    entry = store.stat(file.path)
    if entry is None or entry.num_bytes != file.num_bytes:
        return False
    with store.open(file.path) as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256


def committed_at(store: Store, step: CommittedStep) -> float | None:
    """Return the time of a commit, in seconds since the epoch by the clock of the store; None if it is unknown."""
    entry = store.stat(_marker(step.position.done))
    return entry.modified if entry else None


@contextmanager
def local_file(store: Store, step: CommittedStep, name: str) -> Iterator[Path]:
    """Yield a local copy of a file of a step, after a check of its content.

    Raises:
        RunError: the step has no such file, or its content changed.
    """
    if name not in step.files:
        actual = ", ".join(sorted(step.files)) or "none"
        raise RunError(f"{store.url}: step {step.position.done} has no file {name!r} (found: {actual})")
    file = step.files[name]
    with store.scratch() as scratch:
        with store.open(file.path) as source, scratch.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        if (actual := _sha256(scratch)) != file.sha256:
            raise RunError(
                f"{store.url}: {file.path} was changed: its sha256 is {actual}, expected {file.sha256} as in the "
                f"commit. Remove {_marker(step.position.done)} to go on from the committed step before it"
            )
        yield scratch


def remove_earlier(store: FencedStore, last: int, kept: Collection[int] = ()) -> None:
    """Remove committed steps, each marker before its files, but the last whole `LAST_COMMITS` and those that are kept.

    Steps after `last` are left alone: they belong to a process that took over.
    """
    whole = (done for done, step, broken in _markers(store) if done <= last and step and not broken)
    staying = {*islice(whole, LAST_COMMITS), *kept}
    for done in sorted(_committed([entry.path for entry in store.list(STEPS)])):
        if done < last and done not in staying:
            with fault_injection.passing("step_removed"):
                step = _parsed(store, done)
                store.delete(_marker(done))
                for file in step.files.values() if step else ():
                    store.delete(file.path)


def _marker(done: int) -> str:
    return f"{STEPS}{done}.json"


def _committed(paths: Collection[str]) -> set[int]:
    return {int(match[1]) for match in map(_MARKER.fullmatch, paths) if match}


UNCOMMITTED = "of a step that was not committed"


def leftovers(store: Store, *, now: float | None = None) -> Iterator[Orphan]:
    """Yield files and uploads that no run of a training will use any more, provided that no run is active.

    Files of a step whose marker cannot be parsed may be named by it, and are left out.
    """
    steps = {done: step for done, step, _ in _markers(store)}
    named = {file.path for step in steps.values() if step for file in step.files.values()}
    unknown = {done for done, step in steps.items() if step is None}
    for entry in store.list(layout.HOME):
        match = _FILE.fullmatch(entry.path)
        if match and entry.path not in named and int(match[1]) not in unknown:
            yield Orphan(entry.path, entry.num_bytes, UNCOMMITTED)
        elif entry.path.startswith(layout.TMP):
            yield Orphan(entry.path, entry.num_bytes, TEMPORARY)
    yield from abandoned_uploads(store)
