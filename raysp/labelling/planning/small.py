"""Size of a run, by which the engine "auto" chooses between this process and Ray."""

from collections.abc import Iterable

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.labelling.planning.run_plan import Opened
from raysp.specs.pipeline import Pipeline

SMALL_BYTES = 64 * 2**20
"""Encoded bytes up to which a run is small: half an hour of 16-bit audio at 16 kHz, some hours of compressed audio."""
SMALL_ROWS = 1_000
"""Rows up to which a run is small if they are read by path, so that their bytes are unknown."""
FEW_ROWS = 20
"""Rows up to which a try-out stays in one process: so few do not gain from reading ahead, actors or other machines."""


def is_small(shards: Iterable[Shard], opened: Opened) -> bool:
    """Return whether one process on this machine labels the shards as fast as Ray's actors would.

    This holds for little audio, and one actor with at most one GPU. Starting Ray takes longer than it saves then.
    """
    pipeline, resources = opened.pipeline, opened.resources
    if resources.machine_cpus is None or not _needs_one_process(pipeline, resources.gpus):
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


def _needs_one_process(pipeline: Pipeline, gpus: float) -> bool:
    """Return whether the pool of a pipeline asks for no more than one process with at most one GPU."""
    label = pipeline.label
    if label.pool.high > 1 or label.pool.memory is not None:
        return False
    return (label.pool.gpus or 0) <= 1 and (label.device != "cuda" or gpus > 0)
