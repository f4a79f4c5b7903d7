"""The engine `here`: pieces are read, labelled and committed in the calling process, without Ray.

Blocks are decoded ahead while the model runs. A pipeline with a user's code runs in the calling thread alone, so that
breakpoints and prints behave as in any program. A row that crashes the process ends the run; the next run reads the
record of begun pieces (`begins.py`) and warns. The engine `ray` isolates such rows.
"""

import contextlib
import os
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence

import pyarrow as pa

from raysp import tracebacks
from raysp.audio.isolation import Decoder
from raysp.corpus.shards import Shard
from raysp.devices import release_memory
from raysp.errors import RunError
from raysp.labelling.engine.begins import Begins
from raysp.labelling.engine.execution import OnPiece, Outcome
from raysp.labelling.engine.job import Job, Message, PieceTodo, pieces_of, sleep_while_waiting
from raysp.labelling.engine.model import Model, ahead
from raysp.labelling.engine.piece import commit_shard, label_piece
from raysp.labelling.engine.piece_reading import read_blocks
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.commit import Retry
from raysp.sink.receipts import ShardFailure
from raysp.storage.store import UnusableError
from raysp.words import RUN_AGAIN

BLOCKS_AHEAD = 2
"""Blocks decoded while one is labelled."""


Item = tuple[PieceTodo | ShardFailure, pa.Table | Exception | None]
"""A block of a piece, the error that ended its reading, or its end; or the failure of a shard."""


class Here:
    """Workers that label and commit in the calling process.

    Args:
        begins: record of the pieces that this run begins.
    """

    def __init__(self, begins: Begins) -> None:
        self._begins = begins

    def label(self, plan: Plan, job: Job, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of a plan, and yield the counts of each after every block and when it is staged."""
        sleep_while_waiting()  # before torch is imported
        import torch

        threads = torch.get_num_threads()
        models: list[Model] = []
        with contextlib.ExitStack() as stack:
            stack.callback(self._begins.close)
            stack.enter_context(_own_debugger())
            stack.callback(torch.set_num_threads, threads)
            decoder = stack.enter_context(Decoder())  # runs in other threads have their own
            items = stack.enter_context(contextlib.closing(self._items(plan, job, decoder, on_piece)))
            if not job.code:
                items = stack.enter_context(contextlib.closing(ahead(items, BLOCKS_AHEAD)))
            try:
                try:
                    models = Model.of(job, in_this_thread=bool(job.code))
                except Exception as error:
                    raise RunError(f"node {socket.gethostname()}: {tracebacks.described(error)}") from error
                later = stack.enter_context(Decoder())  # while the other one reads the next piece
                yield from self._messages(models, items, job, later)
            finally:
                for model in models:
                    model.close()
                # Before memory is released, since what a model refers to is kept.
                models = []
                release_memory(job.settings.device)

    def _items(self, plan: Plan, job: Job, decoder: Decoder, on_piece: OnPiece) -> Generator[Item]:
        """Yield failures of shards, and of each piece its blocks, then its end or the error that ended it."""
        for todo in pieces_of(plan.todo):
            if isinstance(todo, ShardFailure):
                yield todo, None
                continue
            # Written before any work on the piece, since a crash leaves no time for it.
            self._begins.begin(todo.name, todo.part)
            on_piece(todo)
            try:
                for block in read_blocks(job, todo, decoder):
                    yield todo, block
                yield todo, None
            except Exception as error:
                yield todo, error

    def _messages(
        self, models: Sequence[Model], items: Iterator[Item], job: Job, decoder: Decoder
    ) -> Generator[Message]:
        """Label pieces; of one that fails, blocks that are read already are dropped."""
        actor = f"{socket.gethostname()}:{os.getpid()}"
        content: pa.Table | Exception | None = None
        done: PieceTodo | None = None

        def read(part: PieceTodo) -> Iterator[pa.Table]:
            return read_blocks(job, part, decoder) if part.number else _blocks(content, items)

        for todo, content in items:  # noqa: B007 - `read` uses it
            if isinstance(todo, ShardFailure):
                yield todo
            elif todo is not done:
                yield from label_piece(job, models, todo, read, job.store, actor)
                self._begins.end(todo.name, todo.part)
                done = todo

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> "CommitsHere":
        """Return an empty set of commits."""
        return CommitsHere(job, retries)


def _blocks(content: pa.Table | Exception | None, items: Iterator[Item]) -> Iterator[pa.Table]:
    """Yield the blocks of a piece from its first item on."""
    while content is not None:
        if isinstance(content, Exception):
            raise content
        yield content
        _, content = next(items)


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
