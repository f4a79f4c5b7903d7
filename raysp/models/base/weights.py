"""Weights of a checkpoint folder: read, compared with a model, and verified after they are written.

`pytorch_model.bin` is a pickle, which can run code. It is read only with `allow_pickle`, by way of safetensors that a
process with bounds writes. The check of a folder, which has headers alone, and the loader, which has
tensors, decide by `Model.fit`, which is made of the comparison here.
"""

import contextlib
import hashlib
import os
import re
import stat
import struct
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import safetensors
import torch
from torch import Tensor

from raysp import bounds
from raysp.bounds import shortened
from raysp.errors import CheckpointError
from raysp.models.base.configuration import INDEX_FILE, SINGLE_FILE, short, weight_files, write_json
from raysp.models.base.pickled_weights import convert_files
from raysp.models.base.placing import is_without_weights

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
METADATA = {"format": "pt"}
"""Metadata of files, without which transformers refuses them."""
COMPARED_BYTES = 64 * 2**20
"""Bytes of a tensor that are compared at once."""

# Names under which older PyTorch and transformers saved the halves of a weight-normalised convolution.
RENAMED_ENDINGS = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}


@dataclass(frozen=True)
class TensorHeader:
    """Entry of one tensor in a safetensors header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return torch.Size(self.shape).numel()

    @property
    def num_bytes(self) -> int:
        """Number of bytes of the data."""
        return self.num_elements * self.dtype.itemsize


def canonical_name(name: str) -> str:
    """Return the current name of a weight that older releases named differently."""
    for old, new in RENAMED_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def read_header(path: Path) -> list[TensorHeader]:
    """Read the header of a safetensors file (8 bytes of length, JSON, data), without the weights."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(bounds.MOST_TENSORS_BYTES, num_bytes - 8):
            raise _corrupt(path, f"header of {length} bytes in a file of {num_bytes}")
        text = file.read(length)
    try:
        entries = bounds.parse_json(text, bounds.MOST_TENSORS_BYTES)
    except ValueError as error:
        raise _corrupt(path, f"header is not JSON ({error})") from error
    if not isinstance(entries, dict):
        raise _corrupt(path, f"header is {type(entries).__name__}")
    return list(_tensor_headers(path, entries, num_bytes - 8 - length))


def _tensor_headers(path: Path, entries: dict[str, object], data_bytes: int) -> Iterator[TensorHeader]:
    """Yield entries; raise unless they cover the data without gaps or overlaps (detects truncated files)."""
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
                raise _corrupt(path, f"entry {shortened(name)} is {shortened(entry)}")
        if end - begin != header.num_bytes:
            raise _corrupt(
                path, f"{shortened(name)} has {end - begin} bytes for shape {shortened(header.shape)} of {dtype}"
            )
        spans.append((begin, end))
        yield header
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise _corrupt(path, f"data at byte {begin} follows data that ends at {at}")
        at = end
    if at != data_bytes:
        raise _corrupt(path, f"{data_bytes} bytes of data where the header describes {at}")


def _twice(path: Path, name: str) -> CheckpointError:
    return CheckpointError(f"{path}: {shortened(name)} occurs twice, expected once: remove one of the two")


def _corrupt(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: not a complete safetensors file: {reason}; copy the file again")


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """Return the tensors of a checkpoint by canonical name, from the headers alone."""
    headers: dict[str, TensorHeader] = {}
    for path in weight_files(folder):
        for header in read_header(path):
            name = canonical_name(header.name)
            if name in headers:
                raise _twice(path, name)
            headers[name] = header
    return headers


def read_tensors(folder: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Load all tensors of a checkpoint by canonical name, on the CPU, in their stored types.

    Within `without_weights` they are on "meta", and only the headers of the files are read.
    """
    if is_without_weights() and not allow_pickle:
        return {name: torch.empty(header.shape, dtype=header.dtype) for name, header in read_headers(folder).items()}
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder, allow_pickle=allow_pickle):
        content = read_pickle(path) if path.suffix == ".bin" else read_safetensors(path)
        for name, tensor in content.items():
            if canonical_name(name) in tensors:
                raise _twice(path, canonical_name(name))
            tensors[canonical_name(name)] = tensor
    return tensors


def read_some(folder: Path, names: Collection[str]) -> dict[str, Tensor]:
    """Load the tensors of a checkpoint with these names in its files, on the CPU."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        tensors.update(read_safetensors(path, names))
    return tensors


def hold_equal(folder: Path, first: TensorHeader, second: TensorHeader) -> bool:
    """Return whether two tensors of a checkpoint have the same values; they are read in parts."""
    if first.shape != second.shape:
        return False
    files = weight_files(folder)
    rows = first.shape[0] if first.shape else 0
    step = max(1, COMPARED_BYTES * rows // max(1, first.num_bytes, second.num_bytes))
    with contextlib.ExitStack() as opened:
        parts = [_parts_of(opened, files, header.name, rows, step) for header in (first, second)]
        return all(are_equal(*pair) for pair in zip(*parts, strict=True))


def _parts_of(opened: contextlib.ExitStack, files: Iterable[Path], name: str, rows: int, step: int) -> Iterator[Tensor]:
    """Yield a tensor in parts of at most `step` rows; all of it if it has no axis."""
    for path in files:
        file = opened.enter_context(safetensors.safe_open(path, framework="pt"))
        if name not in file.keys():  # noqa: SIM118 - not a dict
            continue
        if not rows:
            yield file.get_tensor(name)
        for first in range(0, rows, step):
            yield file.get_slice(name)[first : first + step]
        return


def are_equal(first: Tensor, second: Tensor) -> bool:
    """Return whether two weights have the same values, in any types; on "meta", whether their shapes are equal."""
    if first.shape != second.shape or first.is_meta or second.is_meta:
        return first.shape == second.shape
    common = torch.promote_types(first.dtype, second.dtype)
    return torch.equal(first.to(common), second.to(common))


def read_safetensors(path: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Load the tensors of one safetensors file on the CPU, after checking its header; or some of them, by name."""
    read_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            chosen = file.keys() if names is None else [name for name in file.keys() if name in names]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in chosen}
    except (safetensors.SafetensorError, OSError) as error:
        raise _corrupt(path, str(error)) from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Load the tensors of one file of `torch.save` on the CPU, by way of a temporary safetensors file.

    Raises:
        CheckpointError: it holds anything but tensors by name, or is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="raysp-weights-") as scratch:
        target = Path(scratch) / SINGLE_FILE
        convert_files([(path, target)])
        return read_safetensors(target)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file that transformers can read.

    Raises:
        OSError: it cannot be written, such as on a full disk.
    """
    import safetensors.torch

    values = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)  # the umask's; the library writes files readable by the owner only
    try:
        safetensors.torch.save_file(values, path, metadata=METADATA)
    except safetensors.SafetensorError as error:
        raise _system_error(error, path) from error
    path.chmod(mode)


def _system_error(error: Exception, path: Path) -> OSError:
    """Return an error of the library that writes as one of the operating system, whose number is in its message."""
    if number := re.search(r"\(os error (\d+)\)", str(error)):
        return OSError(int(number[1]), os.strerror(int(number[1])), str(path))
    return OSError(f"{path}: {error}")


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """Write `model.safetensors`, or shards of at most `shard_bytes` with their index."""
    stem = SINGLE_FILE.removesuffix(".safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        filled = sum(other.nbytes for other in shards[-1].values())
        if shards[-1] and filled + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    # Files of an earlier save would be taken for the weights, or listed with them.
    for old in [folder / SINGLE_FILE, *folder.glob(f"{stem}-*-of-*.safetensors"), folder / INDEX_FILE]:
        old.unlink(missing_ok=True)
    if len(shards) == 1:
        write_safetensors(folder / SINGLE_FILE, shards[0])
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / file_name, shard)
        weight_map.update(dict.fromkeys(shard, file_name))
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})


SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[KMGT]I?)?B|)", re.IGNORECASE)
UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for ending, base in (("B", 1000), ("IB", 1024))
}


def num_bytes(size: int | str) -> int:
    """Return a number of bytes, from an int or a text such as "5GB" or "20 MiB"."""
    match = SIZE.fullmatch(str(size).strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"max_shard_size is {size!r}, expected a number of bytes, or a size such as '5GB'")
    return max(1, int(float(match[1]) * UNITS[match[2].upper()]))


Shape = tuple[int, ...]


class Stored(Protocol):
    """A weight of a checkpoint: its header, or its tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of its axes."""


Value = TypeVar("Value", bound=Stored)
REMEDY = "use the config.json that was saved with these weights"


@dataclass(frozen=True)
class Difference:
    """Weights that only the model or only the checkpoint has, and those whose shapes differ."""

    missing: tuple[str, ...] = ()
    """Names that the checkpoint lacks, in the order of the model."""
    unexpected: tuple[str, ...] = ()
    """Names that the model lacks, in the order of the checkpoint."""
    mismatched: tuple[tuple[str, Shape, Shape], ...] = ()
    """Names with the shapes of the checkpoint and of the model."""

    @property
    def names(self) -> list[str]:
        """All names that differ in any way."""
        return [*self.missing, *self.unexpected, *(name for name, _, _ in self.mismatched)]

    def without(self, names: Iterable[str] = (), *, shapes: Collection[str] = ()) -> Self:
        """Return the difference without these missing and unexpected names, and these mismatched `shapes`."""
        dropped = set(names)
        return type(self)(
            tuple(name for name in self.missing if name not in dropped),
            tuple(name for name in self.unexpected if name not in dropped),
            tuple(entry for entry in self.mismatched if entry[0] not in shapes),
        )

    def check(self, where: str | os.PathLike[str]) -> None:
        """Raise CheckpointError unless there is no difference; the message lists both sides."""
        if self.missing or self.unexpected:
            raise CheckpointError(
                f"{where}: weights do not fit config.json: missing {short(self.missing)}; "
                f"unexpected {short(self.unexpected)}: {REMEDY}"
            )
        if self.mismatched:
            shapes = [f"{name} is {shape!r}, expected {expected!r}" for name, shape, expected in self.mismatched]
            raise CheckpointError(f"{where}: shapes of weights do not fit config.json: {short(shapes)}: {REMEDY}")


def compare(stored: Mapping[str, Stored], expected: Mapping[str, Stored]) -> Difference:
    """Return the difference of the weights of a checkpoint (`stored`) and of a model (`expected`)."""
    return Difference(
        tuple(name for name in expected if name not in stored),
        tuple(name for name in stored if name not in expected),
        tuple(
            (name, tuple(stored[name].shape), tuple(weight.shape))
            for name, weight in expected.items()
            if name in stored and tuple(stored[name].shape) != tuple(weight.shape)
        ),
    )


@dataclass(frozen=True)
class Fit(Generic[Value]):
    """Assignment of the weights of a checkpoint to a model."""

    values: Mapping[str, Value]
    """Weights that the model takes, by its names."""
    difference: Difference
    """Names and shapes that differ, without tied weights and `unused`."""
    refused: Difference
    """Names and shapes of `difference` that must not differ."""
    unused: tuple[str, ...] = ()
    """Names of weights of the checkpoint that belong to no part of the model, such as another head."""


def without_tied(
    values: Mapping[str, Value],
    tied: Mapping[str, str],
    are_equal: Callable[[Value, Value], bool],
    where: str | os.PathLike[str],
) -> dict[str, Value]:
    """Return weights without tied copies, which a checkpoint holds under one of two names, or under both.

    Args:
        values: Weights of a checkpoint, by the names of the model.
        tied: {name: name of the weight that it equals}.
        are_equal: Returns whether two weights have the same values.
        where: Name of the checkpoint for messages.

    Raises:
        CheckpointError: Two tied weights have different values.
    """
    kept = dict(values)
    for name, source in tied.items():
        if name not in kept:
            continue
        value = kept.pop(name)
        if not are_equal(value, kept.setdefault(source, value)):
            raise CheckpointError(
                f"{where}: {name} and {source} hold different values, expected equal ones, since tie_word_embeddings "
                "of the decoder makes them one weight: set it to false in config.json to use both, or remove the wrong "
                "one"
            )
    return kept


OPENED_BYTES = 256 * bounds.MIB
"""Bytes of tensors read from one opening of a file: pages of a mapped file count as memory until it is closed."""


def verify(path: Path, digests: Mapping[str, str], on_bytes: Callable[[int], None]) -> None:
    """Read a file as checkpoints are read, and compare each tensor with its digest.

    Args:
        path: a safetensors file.
        digests: SHA-256 of the values of each tensor, by name.
        on_bytes: called with the number of bytes of each tensor.

    Raises:
        CheckpointError: the file has other tensors or other values.
    """
    headers = read_header(path)
    if {header.name for header in headers} != digests.keys():
        raise CheckpointError(f"{path}: has other tensors than were written; check the disk, and run again")
    group: list[str] = []
    num_bytes = 0
    for header in headers:
        group.append(header.name)
        num_bytes += header.num_bytes
        if num_bytes >= OPENED_BYTES:
            _compare(path, group, digests, on_bytes)
            group, num_bytes = [], 0
    _compare(path, group, digests, on_bytes)


def _compare(path: Path, names: Sequence[str], digests: Mapping[str, str], on_bytes: Callable[[int], None]) -> None:
    with safetensors.safe_open(path, framework="pt") as file:
        for name in names:
            tensor = file.get_tensor(name)
            if digest(tensor) != digests[name]:
                raise CheckpointError(
                    f"{path}: {shortened(name)} differs from what was written; check the disk, and run again"
                )
            on_bytes(tensor.nbytes)


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of the values of a tensor."""
    values = hashlib.sha256()
    if tensor.numel():
        values.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return values.hexdigest()
