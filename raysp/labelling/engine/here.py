"""The engine `here`: pieces are read, labelled and committed in the calling process, without Ray.

Blocks are decoded ahead while the model runs. A pipeline with a user's code runs in the calling thread alone, so that
breakpoints and prints behave as in any program. A row that crashes the process ends the run; the next run reads the
record of begun pieces (`begins.py`) and warns. The engine `ray` isolates such rows.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa

from raysp.audio.isolation import Decoder
from raysp.corpus.shards import Piece, Shard
from raysp.devices import release_memory
from raysp.errors import RunError
from raysp.labelling.engine.begins import Begins
from raysp.labelling.engine.execution import OnPiece, Outcome
from raysp.labelling.engine.workers.calls_in_order import in_order
from raysp.labelling.engine.workers.committer import commit_shard
from raysp.labelling.engine.workers.job import Job, PieceTodo, serialised, sleep_while_waiting
from raysp.labelling.engine.workers.label_actor import LabelActor
from raysp.labelling.engine.workers.messages import LabelledBlock, Message, read_messages
from raysp.labelling.engine.workers.reader import Reader
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.receipts import ShardFailure
from raysp.sink.todo import Retry
from raysp.storage.store import UnusableError
from raysp.words import RUN_AGAIN

BLOCKS_AHEAD = 2
"""Blocks decoded while one is labelled."""

Item = TypeVar("Item")


class Here:
    """Workers that label and commit in the calling process.

    Args:
        begins: record of the pieces that this run begins.
    """

    def __init__(self, begins: Begins) -> None:
        self._begins = begins

    def label(self, plan: Plan, job: Job, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of a plan, and yield a message per block; `on_piece` is called with each piece taken."""
        sleep_while_waiting()  # before torch is imported
        import torch

        threads = torch.get_num_threads()
        actor = None
        with contextlib.ExitStack() as stack:
            stack.callback(self._begins.close)
            stack.enter_context(_own_debugger())
            stack.callback(torch.set_num_threads, threads)
            decoder = stack.enter_context(Decoder())  # runs in other threads have their own
            items = stack.enter_context(contextlib.closing(self._items(plan, job, decoder)))
            if not job.code:
                items = stack.enter_context(contextlib.closing(_ahead(items)))
            try:
                actor = LabelActor(job, ends_process=False, in_this_thread=bool(job.code))
                yield from self._messages(actor, items, on_piece, job)
            finally:
                if actor is not None:
                    actor.close()
                # Before memory is released, since what the model refers to is kept.
                del actor
                release_memory(job.settings.device)

    def _messages(
        self, actor: LabelActor, items: "Iterator[PieceTodo | ShardFailure | pa.Table]", on_piece: OnPiece, job: Job
    ) -> Iterator[Message]:
        def labelled(item: PieceTodo | ShardFailure | pa.Table) -> PieceTodo | ShardFailure | list[Message]:
            return [*read_messages(actor(item))] if isinstance(item, pa.Table) else item

        # One block is staged while the device has the others, so that it never waits for the next one.
        calls = 1 if actor.op.blocks_in_hand == 1 else 1 + actor.op.blocks_in_hand
        for item in map(labelled, items) if job.code else in_order(labelled, items, calls):
            if isinstance(item, PieceTodo):
                on_piece(item)
            elif isinstance(item, ShardFailure):
                yield item
            else:
                for message in item:
                    if isinstance(message, LabelledBlock) and message.receipt.of:
                        self._begins.end(message.receipt.shard, Piece(message.receipt.first, message.receipt.end))
                    yield message

    def _items(self, plan: Plan, job: Job, decoder: Decoder) -> "Generator[PieceTodo | ShardFailure | pa.Table]":
        """Yield each piece, then its packed blocks; or the failure of its shard."""
        reader = Reader(job, decoder)
        for piece in serialised(plan.todo):
            if isinstance(piece, ShardFailure):
                yield piece
                continue
            todo, item = piece
            # Written before any work on the piece, since a crash leaves no time for it.
            self._begins.begin(todo.shard.name, todo.piece)
            yield todo
            yield from reader(pa.table({"piece": [item]}))

    def bisect(self, plan: Plan, job: Job, pieces: Sequence[PieceTodo]) -> Iterator[Message]:
        """Return an empty iterator: `label` never yields `PoisonedPiece`."""
        return iter(())

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> "CommitsHere":
        """Return an empty set of commits."""
        return CommitsHere(job, retries)


class CommitsHere:
    """Commits that run synchronously in `start`."""

    def __init__(self, job: Job, retries: Mapping[str, Retry]) -> None:
        self.job = job
        self.retries = retries
        self._outcomes: dict[str, Outcome] = {}

    def start(self, shard: Shard, staged_bytes: int) -> None:
        """Commit a shard.

        Raises:
            RunError: the sink cannot be written.
        """
        outcome = commit_shard(self.job, shard, self.retries.get(shard.name))
        if isinstance(outcome, UnusableError):
            raise RunError(f"{outcome}. {RUN_AGAIN}")
        self._outcomes[shard.name] = outcome

    def begun(self) -> list[str]:
        """Return the names of shards whose outcomes were not returned yet."""
        return list(self._outcomes)

    def finished(self) -> list[Outcome]:
        """Return the outcomes since the last call."""
        outcomes, self._outcomes = list(self._outcomes.values()), {}
        return outcomes

    def rest(self) -> Iterator[list[Outcome]]:
        """Yield the outcomes since the last call."""
        yield self.finished()

    def stop(self, seconds: float) -> list[Outcome]:
        """Return the outcomes since the last call."""
        return self.finished()


@contextlib.contextmanager
def _own_debugger() -> Iterator[None]:
    """Unset PYTHONBREAKPOINT if a connected Ray has set it: its debugger is for workers."""
    debugger = os.environ.get("PYTHONBREAKPOINT", "")
    if not debugger.startswith("ray."):
        yield
        return
    del os.environ["PYTHONBREAKPOINT"]
    try:
        yield
    finally:
        os.environ["PYTHONBREAKPOINT"] = debugger


def _ahead(items: Iterable[Item]) -> Generator[Item]:
    """Yield items that another thread produces, at most `BLOCKS_AHEAD` of them in advance.

    Raises:
        BaseException: the error that ended the other thread.
    """
    taken = queue.Queue[tuple[Item | None, BaseException | None]](BLOCKS_AHEAD)
    is_closed = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not is_closed.is_set():
            with contextlib.suppress(queue.Full):
                taken.put((item, error), timeout=0.1)
                return

    def take() -> None:
        try:
            for item in items:
                put(item, None)
                if is_closed.is_set():
                    return
            put(None, None)
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=take, name="raysp-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = taken.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        is_closed.set()
        thread.join()
