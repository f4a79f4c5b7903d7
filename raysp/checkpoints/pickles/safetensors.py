"""Writing of tensors of a file of `torch.save` as safetensors, a part of a tensor at a time."""

import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from raysp.checkpoints.pickles.files import Weight
from raysp.checkpoints.pickles.program import ITEM_BYTES, NotWeightsError

CHUNK_BYTES = 16 * 1024 * 1024
TIED = (
    ("shared.weight", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")),
    ("embed_tokens.weight", ("lm_head.weight", "proj_out.weight")),
    ("word_embeddings.weight", ("predictions.decoder.weight",)),
    ("predictions.bias", ("predictions.decoder.bias",)),
    ("wte.weight", ("lm_head.weight",)),
)
"""Ends of the names of embeddings, and those of the weights that models tie to them and so may lack in a checkpoint."""
_METADATA = {"format": "pt"}
"""Metadata of files, without which transformers refuses them."""


@dataclass(frozen=True)
class Written:
    """Result of the conversion of a file of `torch.save`."""

    digests: Mapping[str, str]
    """The SHA-256 of each tensor's values, by its name in the new file."""
    tied: Mapping[str, str]
    """Names of tensors that are not stored, each with the name of the equal tensor that is."""


def write_weights(
    source: Path, weights: Sequence[Weight], target: Path, *, are_tied: bool, on_bytes: Callable[[int], None]
) -> Written:
    """Write tensors of a file to a new safetensors file, and flush it to the disk.

    Args:
        source: the file.
        weights: its tensors.
        target: the new file.
        are_tied: whether the model's configuration ties its outputs to its embeddings: of several names of one tensor,
            those that `TIED` lists are then left out. Other names are stored with values of their own.
        on_bytes: called with the number of bytes that were written since the last call.

    Raises:
        NotWeightsError: the file is shorter than it claims.
        OSError: it cannot be read, or the new one cannot be written.
    """
    tied = _tied(weights) if are_tied else {}
    # The order of the safetensors library: by size of an element, so that all of them are aligned, then by name.
    stored = sorted(
        (weight for weight in weights if weight.name not in tied),
        key=lambda weight: (-ITEM_BYTES[weight.view.storage.dtype], weight.name),
    )
    digests = {}
    with source.open("rb") as file, target.open("xb") as out:
        out.write(_header(stored))
        for weight in stored:
            digest = hashlib.sha256()
            for chunk in _chunks(file, weight):
                digest.update(chunk)
                out.write(chunk)
                on_bytes(len(chunk))
            digests[weight.name] = digest.hexdigest()
        out.flush()
        os.fsync(out.fileno())
    return Written(digests, tied)


def _tied(weights: Sequence[Weight]) -> dict[str, str]:
    groups: dict[tuple[object, ...], list[str]] = {}
    for weight in weights:
        if weight.view.num_elements:
            groups.setdefault(weight.identity, []).append(weight.name)
    return {dropped: kept for names in groups.values() for dropped, kept in _tied_names(names)}


def _tied_names(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield names of one tensor that may be left out, each with the name that is kept."""
    for ending, tied in TIED:
        if kept := next((name for name in names if name.endswith(ending)), None):
            yield from ((name, kept) for name in names if name.endswith(tied) and name != kept)
            return


def _header(stored: Sequence[Weight]) -> bytes:
    entries: dict[str, object] = {"__metadata__": _METADATA}
    end = 0
    for weight in stored:
        if weight.name == "__metadata__":
            raise NotWeightsError("a tensor has the name __metadata__, which safetensors files do not allow")
        begin, end = end, end + weight.view.num_bytes
        entries[weight.name] = {
            "dtype": weight.view.storage.dtype,
            "shape": weight.view.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _chunks(file: BinaryIO, weight: Weight) -> Iterator[bytes]:
    """Yield the values of a tensor in its own order."""
    if weight.view.is_contiguous:
        yield from _following(file, weight.place, weight.view.num_bytes)
    else:
        yield from _gathered(file, weight)


def _following(file: BinaryIO, place: int, num_bytes: int) -> Iterator[bytes]:
    file.seek(place)
    while num_bytes:
        chunk = file.read(min(num_bytes, CHUNK_BYTES))
        if not chunk:
            raise NotWeightsError("it is truncated")
        num_bytes -= len(chunk)
        yield chunk


def _gathered(file: BinaryIO, weight: Weight) -> Iterator[bytes]:
    """Yield the values of a transposed tensor, or one with gaps, from a mapping of its part of the file."""
    view, size = weight.view, ITEM_BYTES[weight.view.storage.dtype]
    if weight.place + view.span * size > os.fstat(file.fileno()).st_size:
        raise NotWeightsError("it is truncated")
    start = weight.place - weight.place % mmap.ALLOCATIONGRANULARITY
    length = weight.place - start + view.span * size
    with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start) as mapped:
        flat = np.frombuffer(mapped, f"<u{size}", view.span, weight.place - start)
        strides = [stride * size for stride in view.strides]
        values = np.lib.stride_tricks.as_strided(flat, view.shape, strides, writeable=False)
        try:
            yield from _parts(values)
        finally:
            del values, flat  # before the mapping is closed


def _parts(values: "np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]") -> Iterator[bytes]:
    if not values.ndim or values.nbytes <= CHUNK_BYTES:
        yield values.tobytes()
        return
    rows = max(1, CHUNK_BYTES * len(values) // values.nbytes)
    for first in range(0, len(values), rows):
        part = values[first : first + rows]
        yield from _parts(part[0]) if rows == 1 else iter((part.tobytes(),))
