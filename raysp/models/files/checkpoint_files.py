"""Names of the files of a checkpoint; importable without torch."""

import re
from pathlib import Path

from raysp.checkpoints.foreign_weights import explanation
from raysp.checkpoints.hub import GENERATION_FILES, PROCESSOR_FILES, SPEAKER_FILES
from raysp.errors import CheckpointError
from raysp.models.files.configuration import read_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
VARIANT = re.compile(r"[A-Za-z0-9_]+")
LABEL_FILES = (*PROCESSOR_FILES, *GENERATION_FILES, *SPEAKER_FILES)


def checkpoint_files(folder: str | Path) -> list[Path]:
    """Return the files that affect labels: configuration, weights, processor, tokenizer."""
    folder = Path(folder)
    return sorted([*weight_files(folder), *(folder / name for name in LABEL_FILES if (folder / name).is_file())])


def with_variant(name: str, variant: str | None) -> str:
    """Return the name of a file of another set of weights: "model.fp16.safetensors" for "fp16"."""
    if variant is None:
        return name
    if not VARIANT.fullmatch(variant):
        raise ValueError(f"variant is {variant!r}, expected a name such as 'fp16'")
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{variant}.{ending}"


def weight_files(folder: Path, *, allow_pickle: bool = False, variant: str | None = None) -> list[Path]:
    """Return the weight files of a checkpoint: one, or those of its index; pickles only if nothing else exists.

    `variant` names another set of weights than the main one; it is never a pickle.
    """
    if variant is not None:
        single, index = folder / with_variant(SINGLE_FILE, variant), folder / with_variant(INDEX_FILE, variant)
        if single.is_file():
            return [single]
        if index.is_file():
            return _indexed_files(index)
        raise CheckpointError(
            f"{folder}: no weights of variant {variant!r}, expected {single.name} or {index.name}: omit variant, or "
            "complete the checkpoint"
        )
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        return _indexed_files(folder / INDEX_FILE)
    if allow_pickle and (folder / PICKLE_FILE).is_file():
        return [folder / PICKLE_FILE]
    if allow_pickle and (folder / PICKLE_INDEX_FILE).is_file():
        return _indexed_files(folder / PICKLE_INDEX_FILE)
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    raise CheckpointError(f"{folder}: {explanation(str(folder), there)}")


def _indexed_files(index: Path) -> list[Path]:
    suffix, kind = (".bin", "pickle") if index.name == PICKLE_INDEX_FILE else (".safetensors", "safetensors")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is {weight_map!r}, expected names of weights with their files")
    files = []
    for name in sorted({str(value) for value in weight_map.values()}):
        path = index.parent / name
        if name != Path(name).name or not name.endswith(suffix):
            raise CheckpointError(f"{index}: lists {name!r}, expected a {kind} file in the same folder")
        if not path.is_file():
            raise CheckpointError(
                f"{index.parent}: {name!r} not found though {index.name} lists it: complete the checkpoint"
            )
        files.append(path)
    return files
