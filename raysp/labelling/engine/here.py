"""The engine `here`: pieces are read, labelled and committed in the calling process, without Ray.

Blocks are decoded ahead while the model runs. A pipeline with a user's code runs in the calling thread alone, so that
breakpoints and prints behave as in any program. A row that crashes the process ends the run; the next run reads the
record of begun pieces (`begins.py`) and warns. The engine `ray` isolates such rows.
"""

import contextlib
import os
import socket
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from raysp import tracebacks
from raysp.audio.isolation import Decoder
from raysp.corpus.shards import Shard
from raysp.devices import DeviceLostError, release_memory
from raysp.errors import ProgramError, RunError
from raysp.labelling.engine.begins import Begins
from raysp.labelling.engine.calls_in_order import ahead, in_order
from raysp.labelling.engine.committing import commit_shard
from raysp.labelling.engine.execution import OnPiece, Outcome
from raysp.labelling.engine.job import Job, PieceTodo, pieces_of, sleep_while_waiting
from raysp.labelling.engine.later_passes import PassTodo, ReadingError
from raysp.labelling.engine.messages import FatalFailure, Message, shard_failure
from raysp.labelling.engine.model import LabelledBlock, Model
from raysp.labelling.engine.piece import PieceLabels
from raysp.labelling.engine.piece_reading import read_blocks
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.receipts import ShardFailure
from raysp.sink.todo import Retry
from raysp.storage.store import UnusableError
from raysp.words import RUN_AGAIN

BLOCKS_AHEAD = 2
"""Blocks decoded while one is labelled."""


class Item(NamedTuple):
    """A block of a piece, the end of the piece (None), or its failure."""

    todo: PieceTodo | None
    """None: the failure is of a shard of which no piece was read."""
    content: pa.Table | ShardFailure | FatalFailure | None


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
                models = _load(job)
                later = stack.enter_context(Decoder())  # while the other one reads the next piece
                yield from self._messages(models, items, job, later)
            finally:
                for model in models:
                    model.close()
                # Before memory is released, since what a model refers to is kept.
                models = []
                release_memory(job.settings.device)

    def _items(self, plan: Plan, job: Job, decoder: Decoder, on_piece: OnPiece) -> Generator[Item]:
        """Yield the blocks of each piece, then its end, or its failure."""
        for todo in pieces_of(plan.todo):
            if isinstance(todo, ShardFailure):
                yield Item(None, todo)
                continue
            # Written before any work on the piece, since a crash leaves no time for it.
            self._begins.begin(todo.name, todo.part)
            on_piece(todo)
            try:
                for block in read_blocks(job, todo, decoder):
                    yield Item(todo, block)
                yield Item(todo, None)
            except ProgramError as error:
                yield Item(todo, FatalFailure(str(error)))
            except Exception as error:
                yield Item(todo, shard_failure(todo.name, error))

    def _messages(
        self, models: Sequence[Model], items: Iterable[Item], job: Job, decoder: Decoder
    ) -> Generator[Message]:
        store = job.store
        actor = f"{socket.gethostname()}:{os.getpid()}"

        def labelled(item: Item) -> tuple[Item, LabelledBlock | ShardFailure | None]:
            if item.todo is None or not isinstance(item.content, pa.Table):
                return item, None
            try:
                return item, models[0](item.content, item.todo.name)
            except DeviceLostError:
                raise
            except Exception as error:
                return item, shard_failure(item.todo.name, error)

        def read(one: PassTodo) -> Iterator[pa.Table]:
            try:
                yield from read_blocks(job.of_pass(one.number), one.todo, decoder, one.columns)
            except ProgramError as error:
                raise ReadingError(str(error)) from error

        labels: PieceLabels | None = None
        failed: PieceTodo | None = None
        """Piece of which a block failed."""
        with contextlib.ExitStack() as stack:
            for item, block in map(labelled, items) if job.code else in_order(labelled, items, models[0].at_once):
                todo, content = item
                if todo is failed and todo is not None:
                    continue
                if labels is None and todo is not None:
                    labels = stack.enter_context(PieceLabels(job, todo, store, actor))
                failure = block if isinstance(block, ShardFailure) else content
                if isinstance(failure, ShardFailure | FatalFailure):
                    yield failure
                    failed = todo
                elif isinstance(block, LabelledBlock) and labels is not None and isinstance(content, pa.Table):
                    labels.kept(content)
                    labels.add(block)
                    yield labels.so_far()
                    continue
                elif todo is not None and labels is not None:
                    try:
                        message = labels.stage(models, read)
                    except ReadingError as error:
                        message = FatalFailure(str(error))
                    yield message
                if todo is not None:
                    self._begins.end(todo.name, todo.part)
                stack.close()
                labels = None

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> "CommitsHere":
        """Return an empty set of commits."""
        return CommitsHere(job, retries)


def _load(job: Job) -> list[Model]:
    try:
        return Model.of(job, in_this_thread=bool(job.code))
    except Exception as error:
        raise RunError(f"node {socket.gethostname()}: {tracebacks.described(error)}") from error


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
