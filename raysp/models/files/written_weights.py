"""Comparison of a written safetensors file with the values that were meant to be in it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import safetensors
import torch

from raysp import bounds
from raysp.bounds import shortened
from raysp.errors import CheckpointError
from raysp.models.files.weights import read_header

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
            if _digest(tensor) != digests[name]:
                raise CheckpointError(
                    f"{path}: {shortened(name)} differs from what was written; check the disk, and run again"
                )
            on_bytes(tensor.nbytes)


def _digest(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256()
    if tensor.numel():
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
