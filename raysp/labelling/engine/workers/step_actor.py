"""Actors that apply steps with a pool of their own to decoded blocks, before the model."""

import functools
import logging
import os
import socket
from collections.abc import Callable

import pyarrow as pa

from raysp.devices import DeviceLostError
from raysp.errors import RayspError
from raysp.labelling import assembly
from raysp.labelling.engine.workers.attempts import MAX_CRASHES
from raysp.labelling.engine.workers.job import Job
from raysp.labelling.engine.workers.messages import (
    FatalFailure,
    PoisonedPiece,
    pack,
    pack_message,
    shard_failure,
    unpack,
)
from raysp.labelling.engine.workers.watchdog import watched
from raysp.sink.layout import BlockName

logger = logging.getLogger(__name__)


def in_turn(job: Job) -> Callable[[pa.Table], pa.Table]:
    """Return a function that applies all stages with pools of their own to packed blocks, in the calling process."""
    actors = [StepActor(job, stage) for stage in range(1, len(job.pipeline.stages))]
    return lambda packed: functools.reduce(lambda block, actor: actor(block), actors, packed)


class StepActor:
    """Actor that applies the steps of one stage to packed blocks.

    Args:
        job: job of the run.
        stage: number of the stage in the pipeline's `stages`.
    """

    def __init__(self, job: Job, stage: int) -> None:
        self.job = job
        self.stage = stage
        self.failure = ""
        try:
            self.op = assembly.late_steps(job.pipeline, job.settings, stage, job.functions)
        except RayspError as error:  # a function that cannot be imported: no other actor could
            self.failure = f"node {socket.gethostname()}: {error}"

    def __call__(self, packed: pa.Table) -> pa.Table:
        """Return a packed block with the columns that the steps add, or a message, also about errors."""
        unpacked = unpack(packed)
        if not isinstance(unpacked, tuple):
            return packed
        if self.failure:
            return pack_message(FatalFailure(self.failure))
        name, block = unpacked
        attempts = self.job.attempts
        work = f"stage {self.stage} {name.shard} {name.piece.first}-{name.piece.end} {name.k}"
        if (crashes := attempts.begin(work)) >= MAX_CRASHES:
            attempts.end(work)
            return pack_message(PoisonedPiece(name.shard, name.piece, crashes))
        result = self._applied(name, block)
        attempts.end(work)
        return result

    def _applied(self, name: BlockName, block: pa.Table) -> pa.Table:
        try:
            with watched(self.job.hang_seconds):
                return pack(name, self.op(block))
        except DeviceLostError:
            logger.exception("%s: the steps of a block failed", name.shard)
            os._exit(1)  # Ray restarts the actor and retries the block
        except Exception as error:
            return pack_message(shard_failure(name.shard, error))
