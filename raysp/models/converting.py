"""Conversion of checkpoints with pickled weights to folders with safetensors, verified before they appear.

A process of its own reads the pickles, and runs no code of them.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysp.checkpoints.hub import locate_pickled
from raysp.checkpoints.new_folders import belonging, check_empty, check_links, new_folder
from raysp.errors import CheckpointError
from raysp.models.base.configuration import INDEX_FILE, PICKLE_INDEX_FILE, read_json, short, weight_files, write_json
from raysp.models.base.pickled_weights import Written, convert_files
from raysp.models.base.weights import read_header, verify
from raysp.models.labelled_passes import CheckpointSummary
from raysp.models.loading import check_checkpoint


@dataclass(frozen=True)
class Conversion:
    """A converted checkpoint."""

    path: Path
    """The new folder."""
    num_tensors: int
    """Number of tensors that were converted."""
    num_bytes: int
    """Bytes of the tensors."""
    written: tuple[str, ...]
    """Names of the new files of weights."""
    copied: tuple[str, ...]
    """Names of the files that were copied."""
    left_out: tuple[str, ...]
    """Names of the files and folders that were not: other weights, training state, code."""
    tied: Mapping[str, str]
    """Names of tensors that are stored once, each with the name under which it is."""
    summary: CheckpointSummary | None
    """The description of the new checkpoint; None if raysp does not read its model itself."""
    unread: str | None
    """Reason why raysp does not read the new checkpoint; None if it does."""


def convert_checkpoint(
    name: str | Path,
    folder: str | Path,
    *,
    storage_options: Mapping[str, object] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Conversion:
    """Convert a checkpoint with pickled weights to a folder with safetensors; no code of it is run.

    Weights keep their names, values and data types; files that belong to a checkpoint are copied. The folder appears
    when all of it is written, and every tensor read back from it equals its source.

    Args:
        name: A folder, a hub id ("owner/name" or "owner/name@revision"), or a url of a folder.
        folder: A new or empty folder.
        storage_options: Options of the storage of a url.
        on_progress: Called with the number of bytes written and verified, and their total.

    Raises:
        CheckpointError: A file holds anything but plain weights, there is nothing to convert, or the folder has files.
        StoreError: A file cannot be read or written.
    """
    folder = Path(folder)
    check_empty(folder)
    source = locate_pickled(str(name), storage_options)
    names = _new_names(source)
    copies, remaining = belonging(source)
    left_out = [place for place in remaining if place not in names]
    left_out += [place for place in copies if place.name in names.values()]
    copies = [place for place in copies if place not in left_out]
    check_links(source, [*names, *copies])
    total = sum(path.stat().st_size for path in names)
    done = 0

    def progress(num_bytes: int) -> None:
        nonlocal done
        done = min(done + num_bytes, 2 * total)
        on_progress(done, 2 * total)

    with new_folder(folder, total + sum(path.stat().st_size for path in copies)) as scratch:
        _copy(source, copies, scratch)
        pairs = [(path, scratch / new) for path, new in names.items()]
        converted = convert_files(pairs, are_tied=_are_tied(source), on_bytes=progress)
        _write_index(source, names, converted, scratch)
        for (_, target), written in zip(pairs, converted, strict=True):
            verify(target, written.digests, progress)
    summary, unread = _description(folder)
    return Conversion(
        path=folder,
        num_tensors=sum(len(file.digests) for file in converted),
        num_bytes=sum((folder / new).stat().st_size for new in names.values()),
        written=tuple(names.values()),
        copied=tuple(str(path.relative_to(source)) for path in copies),
        left_out=tuple(place.name for place in left_out),
        tied={dropped: kept for file in converted for dropped, kept in file.tied.items()},
        summary=summary,
        unread=unread,
    )


def _new_names(source: Path) -> dict[Path, str]:
    """Return the pickled weights of a folder, each with the name of its new file."""
    if not (source / "config.json").is_file():
        raise CheckpointError(f"{source}: no config.json there; expected a Hugging Face model folder")
    pickled = [path for path in weight_files(source, allow_pickle=True) if path.suffix == ".bin"]
    names = {path: f"{path.stem.removeprefix('pytorch_')}.safetensors" for path in pickled}
    names |= {
        path: f"{path.stem}.safetensors"
        for path in sorted(source.glob("adapter.*.bin"))
        if path.is_file() and not path.with_suffix(".safetensors").exists()
    }
    if not names:
        raise CheckpointError(
            f"{source}: has safetensors, and no pickled weights without safetensors of the same name: use it as it is"
        )
    if len({*names.values()}) < len(names):
        raise CheckpointError(
            f"{source}: {short(path.name for path in names)} would be written to one file: rename one"
        )
    return names


def _are_tied(source: Path) -> bool:
    """Return whether config.json ties the output of a text decoder to its embeddings, as it does unless it denies."""
    config = read_json(source / "config.json")
    decoder = config.get("decoder")
    return (decoder if isinstance(decoder, dict) else config).get("tie_word_embeddings") is not False


def _copy(source: Path, files: Sequence[Path], target: Path) -> None:
    for file in files:
        place = target / file.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        with file.open("rb") as old, place.open("xb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())


def _write_index(source: Path, names: Mapping[Path, str], converted: Sequence[Written], scratch: Path) -> None:
    """Write the index of several files, after comparing their tensors with the old one."""
    index = source / PICKLE_INDEX_FILE
    shards = {path: key for path, key in zip(names, converted, strict=True) if not path.name.startswith("adapter.")}
    if not shards or not any(path.name != "pytorch_model.bin" for path in shards):
        return
    listed = read_json(index)["weight_map"]
    weight_map: dict[str, str] = {}
    for path, written in shards.items():
        lacks = [key for key, file in listed.items() if file == path.name and key not in written.digests]
        if lacks := [key for key in lacks if key not in written.tied]:
            raise CheckpointError(f"{path}: lacks {short(lacks)}, which {index.name} lists there: copy it again")
        if twice := sorted(weight_map.keys() & written.digests.keys()):
            raise CheckpointError(f"{path}: has {short(twice)}, which another file has too: remove one of the two")
        weight_map |= dict.fromkeys(written.digests, names[path])
    total = sum(header.num_bytes for path in shards for header in read_header(scratch / names[path]))
    write_json(scratch / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _description(folder: Path) -> tuple[CheckpointSummary | None, str | None]:
    try:
        return check_checkpoint(folder), None
    except CheckpointError as error:
        return None, str(error)
