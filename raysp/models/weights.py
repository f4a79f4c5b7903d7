"""Weights of a checkpoint folder: safetensors files, one or sharded by an index, checked before they are loaded.

Nothing else is opened: `pytorch_model.bin` is a pickle, and a pickle is a program.
"""

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.configuration import read_json, write_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

HEADER_BYTES = 64 << 20  # the format allows 100 MB; a header of a real model is below 1 MB
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

# Names under which older PyTorch and transformers saved the halves of a weight-normalised convolution.
RENAMED_ENDINGS = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}

SHOWN_NAMES = 8


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors header says of one tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return torch.Size(self.shape).numel()

    @property
    def num_bytes(self) -> int:
        """Bytes of its data."""
        return self.num_elements * self.dtype.itemsize


def canonical_name(name: str) -> str:
    """Return the current name of a weight that an older release saved under another."""
    for old, new in RENAMED_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint: one, or those that its index names."""
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        return _indexed_files(folder)
    pickles = sorted(path.name for path in folder.glob("*.bin")) if folder.is_dir() else []
    if pickles:
        raise CheckpointError(
            f"{folder}: weights are a pickle ({_short(pickles)}), which can run any program; expected {SINGLE_FILE}: "
            "convert them where you trust them, with transformers' save_pretrained"
        )
    raise CheckpointError(
        f"{folder}: no weights found, expected {SINGLE_FILE} or {INDEX_FILE}: complete the checkpoint"
    )


def _indexed_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is {weight_map!r}, expected names of weights with their files")
    files = []
    for name in sorted({str(value) for value in weight_map.values()}):
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: names {name!r}, expected a safetensors file of the same folder")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name!r} not found though {INDEX_FILE} lists it: complete the checkpoint")
        files.append(folder / name)
    return files


def read_header(path: Path) -> list[TensorHeader]:
    """Read what a safetensors file holds, without its weights (8 bytes of length, JSON, data)."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(HEADER_BYTES, num_bytes - 8):
            raise _corrupt(path, f"header of {length} bytes in a file of {num_bytes}")
        text = file.read(length)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"header is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise _corrupt(path, f"header is {type(entries).__name__}")
    return list(_tensor_headers(path, entries, num_bytes - 8 - length))


def _tensor_headers(path: Path, entries: dict[str, object], data_bytes: int) -> Iterator[TensorHeader]:
    """Check that entries tile the data without holes or overlaps, which also catches a file cut short."""
    spans = []
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if (
                dtype in DTYPES and all(type(size) is int and size >= 0 for size in shape)
            ):
                header = TensorHeader(name, DTYPES[dtype], tuple(shape))
            case _:
                raise _corrupt(path, f"entry {name!r} is {str(entry)[:200]}")
        if end - begin != header.num_bytes:
            raise _corrupt(path, f"{name!r} has {end - begin} bytes for shape {header.shape} of {dtype}")
        spans.append((begin, end))
        yield header
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise _corrupt(path, f"data at byte {begin} follows data that ends at {at}")
        at = end
    if at != data_bytes:
        raise _corrupt(path, f"{data_bytes} bytes of data where the header describes {at}")


def _corrupt(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: not a whole safetensors file: {what}; copy the file again")


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """Return the tensors of a checkpoint by canonical name, from the headers alone."""
    headers: dict[str, TensorHeader] = {}
    for path in weight_files(folder):
        for header in read_header(path):
            name = canonical_name(header.name)
            if name in headers:
                raise CheckpointError(f"{path}: {name!r} is there twice, expected once: remove one of the two")
            headers[name] = header
    return headers


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Load all tensors of a checkpoint by canonical name, on the CPU, as they are stored."""
    read_headers(folder)
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                tensors.update({canonical_name(name): file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise _corrupt(path, str(error)) from error
    return tensors


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """Write `model.safetensors`, or shards of at most `shard_bytes` with their index."""
    import safetensors.torch

    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        filled = sum(other.nbytes for other in shards[-1].values())
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor.detach().cpu().contiguous()
    for old in [*folder.glob("model*.safetensors"), folder / INDEX_FILE]:
        old.unlink(missing_ok=True)
    if len(shards) == 1:
        safetensors.torch.save_file(shards[0], folder / SINGLE_FILE, metadata={"format": "pt"})
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.torch.save_file(shard, folder / file_name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file_name))
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


def check_names_and_shapes(
    where: str | os.PathLike[str],
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    optional: Iterable[str] = (),
) -> None:
    """Raise with both sides where a checkpoint's weights are not exactly the model's."""
    skipped = set(optional)
    missing = [name for name in expected if name not in found and name not in skipped]
    unexpected = [name for name in found if name not in expected and name not in skipped]
    if missing or unexpected:
        raise CheckpointError(
            f"{where}: weights do not fit config.json: missing {_short(missing)}; unexpected {_short(unexpected)}: "
            "use the config.json that was saved with these weights"
        )
    shapes = [
        f"{name} is {tuple(found[name])!r}, expected {tuple(shape)!r}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if shapes:
        raise CheckpointError(
            f"{where}: shapes of weights do not fit config.json: {_short(shapes)}: "
            "use the config.json that was saved with these weights"
        )


def _short(names: list[str]) -> str:
    """Join names; of a long list, the first few and the count."""
    if not names:
        return "none"
    rest = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {rest} more ({len(names)} in all)" if rest > 0 else "")
