"""Size of a run, as far as it decides whether the run needs Ray."""

from collections.abc import Iterable

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.planning.resources import Resources
from raysp.specs.pipeline import Pipeline

SMALL_BYTES = 64 * 2**20
"""Encoded bytes up to which a run is small: half an hour of 16-bit audio at 16 kHz, some hours of compressed audio."""
SMALL_ROWS = 1_000
"""Rows up to which a run is small if they are read by path, so that their bytes are unknown."""


def is_small(shards: Iterable[Shard], pipeline: Pipeline, resources: Resources) -> bool:
    """Return whether one process on this machine labels the shards as fast as Ray's actors would.

    This holds for little audio, one actor, a model on CPUs, and no step with a pool of its own. Starting Ray takes
    longer than it saves then.
    """
    label = pipeline.label
    if resources.machine_cpus is None or label.pool.high > 1 or label.pool.memory is not None or pipeline.own_pools:
        return False
    if label.device == "cuda" or (label.device == "auto" and resources.gpus):
        return False
    is_by_path = pipeline.source.audio_root is not None
    num_bytes = num_rows = 0
    for shard in shards:
        if is_by_path or not sources.kind_of(shard).holds_audio:
            num_rows += shard.num_rows
        else:
            num_bytes += shard.num_bytes
        if num_bytes > SMALL_BYTES or num_rows > SMALL_ROWS:
            return False
    return True
