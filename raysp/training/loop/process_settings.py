"""Settings of the process in which a worker trains."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

import torch

from raysp.errors import RunError
from raysp.models.base.placing import steady_convolutions

logger = logging.getLogger(__name__)

CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
"""Variable that oneDNN reads before its first operation in a process."""
CACHED_PRIMITIVES = 64
"""Size of oneDNN's cache (default 1,024). A primitive fits the shapes of one micro-batch, which rarely recur."""
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Variable that cuBLAS reads before its first product in a process."""
FIXED_WORKSPACE = ":4096:8"
"""Workspaces of cuBLAS with which a product has the same bits each time: eight of 4 MiB (NVIDIA's documentation)."""
REFUSALS = ("does not have a deterministic implementation", WORKSPACE)
"""Parts of torch's messages on an operation that has no deterministic kernel."""
_turn = threading.RLock()


@contextlib.contextmanager
def turn_of_process() -> Iterator[None]:
    """Wait until no other thread of this process trains: its masks would be drawn from the same generator of torch."""
    if not _turn.acquire(blocking=False):
        logger.warning("another training of this process goes on: this one waits for its end")
        _turn.acquire()
    try:
        yield
    finally:
        _turn.release()


@contextlib.contextmanager
def process_settings(threads: int, *, deterministic: bool = False) -> Iterator[None]:
    """Set torch's threads and, unless the environment does, the primitives that oneDNN keeps; undo all at the end.

    Args:
        threads: threads of torch.
        deterministic: whether torch uses kernels of GPUs that give the same bits each time, in all threads.

    Raises:
        RunError: an operation has no such kernel.
    """
    variables = {CACHE: str(CACHED_PRIMITIVES), **({WORKSPACE: FIXED_WORKSPACE} if deterministic else {})}
    added = {name: value for name, value in variables.items() if name not in os.environ}
    before = torch.get_num_threads()
    os.environ.update(added)
    torch.set_num_threads(threads)
    try:
        with _deterministic() if deterministic else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(before)
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with steady_convolutions():
        torch.use_deterministic_algorithms(True)
        try:
            yield
        except RuntimeError as error:
            if not any(part in str(error) for part in REFUSALS):
                raise
            raise RunError(
                f"deterministic=True, and an operation of this training gives other bits each time on its device: "
                f"{str(error).splitlines()[0]} Set deterministic=False; committed steps remain"
            ) from error
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
