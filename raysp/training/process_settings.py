"""Settings of the process in which a worker trains."""

import contextlib
import os
from collections.abc import Iterator

import torch

CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
"""Variable that oneDNN reads before its first operation in a process."""
CACHED_PRIMITIVES = 64
"""Primitives that oneDNN keeps, of 1,024 otherwise: each has the shapes of one micro-batch, which hardly come again."""


@contextlib.contextmanager
def process_settings(threads: int) -> Iterator[None]:
    """Set the number of torch threads and, unless the environment does, of primitives that oneDNN keeps; undo both.

    Args:
        threads: threads of torch.
    """
    before, is_set = torch.get_num_threads(), CACHE in os.environ
    if not is_set:
        os.environ[CACHE] = str(CACHED_PRIMITIVES)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if not is_set:
            os.environ.pop(CACHE, None)
