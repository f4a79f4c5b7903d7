"""Actors that hold the model of a `Label` step, label blocks and stage the results."""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pyarrow as pa

from raysp.devices import DeviceLostError, is_accelerator
from raysp.errors import RunError, StoreError
from raysp.labelling import assembly
from raysp.labelling.engine.workers.attempts import MAX_CRASHES, load_error, model_loaded
from raysp.labelling.engine.workers.job import Job
from raysp.labelling.engine.workers.messages import (
    FatalFailure,
    LabelledBlock,
    Message,
    PoisonedPiece,
    RowError,
    message_row,
    shard_failure,
    unpack,
)
from raysp.labelling.engine.workers.watchdog import watched
from raysp.ops.decoding import claimed_seconds
from raysp.ops.rows import ERROR, SKIPPED
from raysp.sink import fault_injection, stage
from raysp.sink.layout import BlockName
from raysp.sink.receipts import BlockReceipt, ShardFailure
from raysp.sink.sinks import Sink
from raysp.storage.store import UnusableError

if TYPE_CHECKING:
    from raysp.ops.labelling import BlockInHand, Figures, LabellingOp

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MAX_EXAMPLES = 3
CALLS_WITH_SEARCHES = 11
"""Calls of an actor with a device whose batches wait for as many processes as there may be on a host."""


def calls_at_once(device: str, *, searches: bool = False) -> int:
    """Return the number of blocks of an actor at once: those in the model's hand at most, and one that is staged.

    `searches`: whether other processes search the texts of batches beside a device.
    """
    if not is_accelerator(device):
        return 2
    return CALLS_WITH_SEARCHES if searches else 3


def load_labelling(job: Job) -> "LabellingOp":
    """Load the model of the `Label` step, on a card that the plan relies on."""
    assembly.refuse_other_card(job.settings)
    import torch

    threads = job.settings.cpus_per_actor.number
    torch.set_num_threads(threads)
    digest = job.metadata["checkpoint_digest"]
    return assembly.labelling(job.pipeline, job.settings, digest=digest, threads=threads, functions=job.functions)


class LabelActor:
    """Actor that holds the model of a `Label` step, labels blocks and stages the results.

    Calls may overlap. The model runs in threads of its own, one for each block that it has in hand (`blocks_in_hand` of
    its op), so that it runs over the next block while columns are made of a result, and while it is staged.

    Args:
        job: the job.
        ends_process: whether the process ends if its device fails, so that its work is done again by a new one;
            otherwise the error is raised.
        in_this_thread: run the model in the calling thread.
    """

    def __init__(self, job: Job, *, ends_process: bool = True, in_this_thread: bool = False) -> None:
        self.job = job
        self.ends_process = ends_process
        fault_injection.adopt(job.fault_injection)
        self.store = Sink.of(job.pipeline.sink).store
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.thread: Executor = CallingThread() if in_this_thread else ThreadPoolExecutor(1)
        try:
            # In the thread that runs the model if it has one block in hand: torch's number of threads is that of a
            # thread.
            self.op = self.thread.submit(self._load).result()
        except Exception as error:
            raise load_error(job.attempts, socket.gethostname(), error) from error
        model_loaded(job.attempts)
        self.in_hand = InHand(self.op.blocks_in_hand)
        if self.op.blocks_in_hand > 1 and not in_this_thread:
            self.close()
            self.thread = ThreadPoolExecutor(self.op.blocks_in_hand)

    def _load(self) -> "LabellingOp":
        """Load the model, unless processes of this actor repeatedly crash on it."""
        attempts = self.job.attempts
        load = f"load {attempts.actor_id()}"
        # Counted before the load, since a crash leaves no time for it.
        if (crashes := attempts.begin(load)) >= MAX_CRASHES:
            raise RunError(
                f"{self.job.pipeline.label.checkpoint}: {crashes} consecutive processes crashed while loading this "
                "model, most likely out of memory: lower pool.actors, or raise pool.memory"
            )
        loaded = load_labelling(self.job)
        attempts.end(load)
        return loaded

    def close(self) -> None:
        """End the model's threads."""
        self.thread.shutdown()

    def __call__(self, packed: pa.Table) -> pa.Table:
        """Label one packed block and return a message, also about errors: Ray would retry raised ones."""
        unpacked = unpack(packed)
        return message_row(self._label_and_stage(*unpacked) if isinstance(unpacked, tuple) else unpacked)

    def _label_and_stage(self, name: BlockName, block: pa.Table) -> Message:
        try:
            given = self.op.prepare(block, name.shard)
            ran = self.thread.submit(self._run, name, given).result()
            if isinstance(ran, PoisonedPiece):
                return ran
            table, figures, waited = ran
            labels = self.op.table(given) if table is None else table
        except DeviceLostError:
            if not self.ends_process:
                raise
            logger.exception("%s: a block failed", name.shard)
            os._exit(1)  # Ray restarts the actor and retries the block
        except Exception as error:
            return shard_failure(name.shard, error)
        try:
            # Before the message: a block that the driver knows of must be there.
            stage.stage(self.store, name, labels)
        except UnusableError as error:  # no space or no permission: no other shard could be written
            return FatalFailure(str(error))
        except StoreError as error:
            return ShardFailure(name.shard, str(error))
        rate, claimed = self.job.settings.checkpoint.sample_rate, claimed_seconds(block)
        return labelled_block(name, labels, figures, waited, rate, self.name, claimed)

    def _run(self, name: BlockName, given: "BlockInHand") -> "tuple[pa.Table | None, Figures, float] | PoisonedPiece":
        """Run the model; make the table here only if the user's code, which may hang or crash, takes part in it."""
        attempts, work = self.job.attempts, f"label {name.shard} {name.piece.first}-{name.piece.end} {name.k}"
        # A block that was in hand in a crash runs alone, so that it is in hand in another one only if it is at fault.
        alone = self.op.blocks_in_hand > 1 and attempts.crashes(work) > 0
        with self.in_hand.taken(alone=alone) as waited:
            # Counted before the work, since a crash leaves no time for it.
            if (crashes := attempts.begin(work)) >= MAX_CRASHES:
                attempts.end(work)
                return PoisonedPiece(name.shard, name.piece, crashes)
            with watched(self.job.hang_seconds * self.op.blocks_in_hand):
                figures = self.op.run(given)
                table = self.op.table(given) if self.op.has_users_code else None
        attempts.end(work)
        return table, figures, waited


class CallingThread(Executor):
    """An executor that runs each call at once, in the thread of the caller."""

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return the future of a call that has ended; an exception is raised here."""
        future = Future[T]()
        future.set_result(call(*args, **kwargs))
        return future


class InHand:
    """Blocks that the model has in hand, and the time that it had none.

    Args:
        most: blocks that it has in hand at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._changed = threading.Condition()
        self._in_hand = 0
        self._is_alone = False
        self._idle_since: float | None = None

    @contextmanager
    def taken(self, *, alone: bool) -> Iterator[float]:
        """Take a block in hand within the `with` block, once there is room; `alone`: once there is no other block.

        Yields the seconds that the model was idle before this block.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._in_hand < (1 if alone or self._is_alone else self.most))
            waited = time.monotonic() - self._idle_since if self._in_hand == 0 and self._idle_since else 0.0
            self._in_hand += 1
            self._is_alone = alone
        try:
            yield waited
        finally:
            with self._changed:
                self._in_hand -= 1
                self._is_alone = False
                self._idle_since = time.monotonic()
                self._changed.notify_all()


def labelled_block(
    name: BlockName,
    labels: pa.Table,
    figures: "Figures",
    waited: float,
    sample_rate: int,
    actor: str,
    claimed: float = 0.0,
) -> LabelledBlock:
    """Return the message about a staged block.

    Args:
        name: identity of the block.
        labels: its labelled windows.
        figures: amounts of audio in it, and its compute time.
        waited: seconds that the model waited for it.
        sample_rate: sample rate of the model.
        actor: name of the actor that labelled it.
        claimed: seconds of audio in its piece, as far as they were known before decoding.
    """
    receipt = BlockReceipt(
        shard=name.shard,
        first=name.piece.first,
        end=name.piece.end,
        k=name.k,
        of=name.of,
        rows=len(labels) - labels.column("windows").null_count,
        windows=figures.windows,
        audio_seconds=sum(s or 0.0 for s in labels.column("seconds").to_pylist()),
        real_samples=round(figures.audio_seconds * sample_rate),
        padded_samples=round(figures.padded_seconds * sample_rate),
        load_seconds=waited,
        forward_seconds=figures.busy_seconds,
        actor=actor,
        finished=time.time(),
        staged_bytes=labels.nbytes,
    )
    errors: Counter[str] = Counter()
    long_errors: dict[int, str] = {}
    skipped: Counter[str] = Counter()
    examples: list[RowError] = []
    columns = (labels.column(c).to_pylist() for c in ("row", "status", "error_type", "error_message", "windows"))
    for row, status, error_type, message, windows in zip(*columns, strict=True):
        if status == SKIPPED and windows is not None:  # a row of several windows counts at its last one
            skipped[error_type] += 1
        if status != ERROR or row in long_errors:
            continue
        if windows == 1:
            errors[error_type] += 1
        else:
            long_errors[row] = error_type
        if len(examples) < MAX_EXAMPLES:
            examples.append(RowError(row, error_type, message))
    return LabelledBlock(
        receipt,
        claimed,
        dict(errors),
        long_errors,
        dict(skipped),
        tuple(examples),
        figures.memory_bytes,
        figures.measured,
    )
