"""The folders of a conversion: which files belong to a checkpoint, and a new folder that appears only when whole."""

import contextlib
import fnmatch
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from raysp.checkpoints.hub import KEPT_FILES, LANGUAGE_MODEL
from raysp.errors import CheckpointError, StoreError
from raysp.storage.opened import flock
from raysp.storage.store import explain

TRAINING_FILES = (
    *("*.bin.index.json", "*.msgpack.index.json", "*.h5.index.json"),
    *("trainer_state.json", "*_results.json"),
)
"""Patterns of files that are left out: indexes of other weights, and the state of a training."""
_FREE_BYTES = 64 * 1024 * 1024


def belonging(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of a folder that belong to a checkpoint, and its other files and folders; without pickles."""
    kept: list[Path] = []
    remaining: list[Path] = []
    for place in sorted(folder.iterdir()):
        if place.name == LANGUAGE_MODEL and place.is_dir():
            kept += [file for file in sorted(place.iterdir()) if file.is_file()]
        else:
            belongs = place.is_file() and matches(place.name, KEPT_FILES) and not matches(place.name, TRAINING_FILES)
            (kept if belongs else remaining).append(place)
    return kept, remaining


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a name has one of these patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_links(folder: Path, files: list[Path]) -> None:
    """Raise unless every file is in the folder, or among the blobs of the hub's cache that the folder is part of.

    Raises:
        CheckpointError: a file is a link to another place, whose content would be copied.
    """
    root = folder.resolve()
    roots = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
    for file in files:
        if not any(file.resolve().is_relative_to(allowed) for allowed in roots):
            raise CheckpointError(
                f"{file}: a link to {str(file.resolve())!r}, outside the checkpoint; expected a file in its folder: "
                "replace the link by the file if it belongs there"
            )


@contextlib.contextmanager
def new_folder(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Yield a scratch folder next to `folder`, which is renamed to it after success and removed otherwise.

    Scratch folders of processes that were killed are removed.

    Args:
        folder: a new or empty folder.
        num_bytes: bytes that are going to be written.

    Raises:
        CheckpointError: the folder has files.
        StoreError: it cannot be written, or there is no space for it.
    """
    place = folder.resolve()
    check_empty(folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_scratch(place)
        _check_space(place.parent, num_bytes)
        scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}.part-", dir=place.parent))
        descriptor = os.open(scratch, os.O_RDONLY)
    except OSError as error:
        raise _explained(error, place) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there
            flock(descriptor)
        yield scratch
        _publish(scratch, place)
    except OSError as error:
        raise _explained(error, place) from error
    finally:
        os.close(descriptor)
        shutil.rmtree(scratch, ignore_errors=True)


def check_empty(folder: Path) -> None:
    """Raise CheckpointError unless a folder is new or empty."""
    if folder.is_symlink() and not folder.exists():
        raise CheckpointError(f"{folder}: a link to a missing folder; expected a new or empty one: give another one")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: is not empty, expected a new folder: give another one")


def _explained(error: OSError, place: Path) -> Exception:
    return error if isinstance(error, StoreError | CheckpointError) else explain(error, "write a checkpoint to", place)


def _check_space(parent: Path, num_bytes: int) -> None:
    if (free := shutil.disk_usage(parent).free) < num_bytes + _FREE_BYTES:
        raise StoreError(
            f"{parent}: has {free:,} bytes free, and the checkpoint takes {num_bytes:,}; free space, or give another "
            "folder"
        )


def _remove_scratch(place: Path) -> None:
    for left in place.parent.glob(f".{glob.escape(place.name)}.part-*"):
        with contextlib.suppress(OSError):  # in use, or no folder
            descriptor = os.open(left, os.O_RDONLY)
            try:
                flock(descriptor)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _publish(scratch: Path, place: Path) -> None:
    """Rename the scratch folder, with the permissions of a folder that `mkdir` makes."""
    # The mask can be read only by setting it.
    umask = os.umask(0)
    os.umask(umask)
    scratch.chmod(0o777 & ~umask)
    descriptor = os.open(scratch, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # For the message: a rename replaces an empty folder only.
    check_empty(place)
    scratch.rename(place)
