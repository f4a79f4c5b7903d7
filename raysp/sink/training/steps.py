"""Committed steps of a training: the files of its state, and one marker that names them.

A step is committed when its marker exists. `.raysp/steps/<done>.json` is created, if absent, after all files of the
step were written below `.raysp/steps/<done>.<id>/`. A marker is removed before its files. So the files of a marker are
whole. A folder that no marker names was left by a process that ended early, or belongs to one that is writing it.
"""

import hashlib
import json
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raysp.errors import RunError
from raysp.sink import fault_injection
from raysp.storage.store import Store

log = logging.getLogger(__name__)

STEPS = ".raysp/steps/"

_MARKER = re.compile(rf"{re.escape(STEPS)}(\d+)\.json")
_FILE = re.compile(rf"{re.escape(STEPS)}((\d+)\.[0-9a-f]+)/[^/]+")

Writer = Callable[[Path], None]
"""Callable that writes a file to a local path."""


@dataclass(frozen=True, slots=True)
class StateFile:
    """A file of a committed step."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Position:
    """How far a training is.

    Attributes:
        done: updates of the weights so far, over all epochs.
        epoch: number of the epoch, from 0.
        step: next step of the epoch, from 0.
    """

    done: int
    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class CommittedStep:
    """Content of a marker.

    Attributes:
        position: how far the training was.
        fingerprint: that of the recipe.
        index: digest of the index of rows.
        num_workers: workers that took part in the step.
        files: files by name.
        metrics: last values by name, such as the loss.
    """

    position: Position
    fingerprint: str
    index: str
    num_workers: int
    files: Mapping[str, StateFile]
    metrics: Mapping[str, float] = field(default_factory=dict)


def commit(
    store: Store,
    position: Position,
    writers: Mapping[str, Writer],
    *,
    fingerprint: str,
    index: str,
    num_workers: int,
    metrics: Mapping[str, float],
) -> CommittedStep:
    """Write the files of a step, then its marker.

    If the step is committed already, by a process that was thought to have ended, that commit is kept: training
    computes the same state again.

    Args:
        store: the sink.
        position: how far the training is.
        writers: how to write each file, by name.
        fingerprint: that of the recipe.
        index: digest of the index of rows.
        num_workers: workers that took part in the step.
        metrics: last values by name.

    Returns:
        The step as it is committed.
    """
    folder = f"{STEPS}{position.done}.{uuid.uuid4().hex}/"
    with fault_injection.passing("step_written"):
        files = {name: _write(store, f"{folder}{name}", write) for name, write in writers.items()}
    step = CommittedStep(position, fingerprint, index, num_workers, files, metrics)
    with fault_injection.passing("step_committed"):
        is_new = store.create(_marker(position.done), json.dumps(asdict(step)).encode())
    return step if is_new else load(store, position.done)


def _write(store: Store, path: str, write: Writer) -> StateFile:
    with store.scratch() as scratch:
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
        content = json.loads(data)
        position, files = Position(**content.pop("position")), content.pop("files")
        return CommittedStep(position, files={name: StateFile(**file) for name, file in files.items()}, **content)
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{store.url}: committed step {path} cannot be parsed ({error})") from error


def latest(store: Store) -> CommittedStep | None:
    """Return the last step of which all files exist with their sizes; None without one.

    Logs a warning for each later step of which a file is missing.

    Raises:
        StoreError: a marker cannot be read, which may be temporary, so no earlier step is taken in its place.
    """
    sizes = {entry.path: entry.num_bytes for entry in store.list(STEPS)}
    for done in sorted(_committed(sizes), reverse=True):
        try:
            step = load(store, done)
        except RunError as error:
            log.warning("%s; going back to the committed step before it", error)
            continue
        if not (broken := [file.path for file in step.files.values() if sizes.get(file.path) != file.num_bytes]):
            return step
        log.warning(
            "%s: step %d has missing or incomplete files (%s); going back to the committed step before it",
            store.url,
            done,
            ", ".join(broken),
        )
    return None


def newest(store: Store, number: int, *, until: int, every: int = 1) -> list[int]:
    """Return the last committed steps up to one, in order, at most `number`.

    Args:
        store: the sink.
        number: most steps to return.
        until: last step to return.
        every: only multiples of it, and `until`, are returned: others were committed because of the time or a stop.
    """
    committed = sorted(_committed([entry.path for entry in store.list(STEPS)]))
    return [done for done in committed if done <= until and (done % every == 0 or done == until)][-number:]


def committed_at(store: Store, step: CommittedStep) -> float | None:
    """Return the time of a commit, in seconds since the epoch by the clock of the store; None if it is unknown."""
    entry = store.stat(_marker(step.position.done))
    return entry.modified if entry else None


@contextmanager
def local_file(store: Store, step: CommittedStep, name: str) -> Iterator[Path]:
    """Yield a local copy of a file of a step, after a check of its content.

    Raises:
        RunError: the step has no such file, or its content is not what was written.
    """
    if name not in step.files:
        found = ", ".join(sorted(step.files)) or "none"
        raise RunError(f"{store.url}: step {step.position.done} has no file {name!r} (found: {found})")
    file = step.files[name]
    with store.scratch() as scratch:
        with store.open(file.path) as source, scratch.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        if (found := _sha256(scratch)) != file.sha256:
            raise RunError(
                f"{store.url}: {file.path} was changed: its sha256 is {found}, that of the commit {file.sha256}. "
                f"Remove {_marker(step.position.done)} to go on from the committed step before it"
            )
        yield scratch


def remove_others(store: Store, kept: Collection[int], *, before: int) -> None:
    """Remove the committed steps before `before` that are not kept, each marker before its files.

    Later steps are left alone: they are those of a process that took over.
    """
    paths = [entry.path for entry in store.list(STEPS)]
    for done in sorted(_committed(paths)):
        if done < before and done not in kept:
            with fault_injection.passing("step_removed"):
                files = load(store, done).files.values()
                store.delete(_marker(done))
                for file in files:
                    store.delete(file.path)


def unnamed(store: Store) -> list[str]:
    """Return the paths of files that no marker names. They may be removed while nobody trains."""
    paths = [entry.path for entry in store.list(STEPS)]
    named = {file.path for done in _committed(paths) for file in load(store, done).files.values()}
    return [path for path in paths if _FILE.fullmatch(path) and path not in named]


def _marker(done: int) -> str:
    return f"{STEPS}{done}.json"


def _committed(paths: Collection[str]) -> set[int]:
    return {int(match[1]) for path in paths if (match := _MARKER.fullmatch(path))}
