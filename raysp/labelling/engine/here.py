"""The engine `here`: pieces are read, labelled and committed in the calling process, without Ray.

Blocks are decoded ahead while the model runs, and a device labels two pieces at once. A pipeline with a user's code
runs in the calling thread alone, so that breakpoints and prints behave as in any program. A row that crashes the
process ends the run; the next run reads the record of begun pieces and warns. The engine `ray` isolates such rows.

The record is one small file per run, in `.raysp/begun/`, with the pieces that the process has begun and not ended. A
run replaces its file before it begins a piece, and deletes it at its end, also after an error or a signal. A file that
another run finds while it holds the lease was therefore left by a process that crashed or was killed.
"""

import contextlib
import json
import logging
import os
import socket
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import cast

import pyarrow as pa

from raysp import bounds, tracebacks
from raysp.audio.isolation import Decoder
from raysp.corpus.shards import Piece
from raysp.devices import release_memory
from raysp.errors import RunError
from raysp.labelling.engine.execution import OnPiece
from raysp.labelling.engine.job import Job, Message, Outcome, PieceTodo, pieces_of, sleep_while_waiting
from raysp.labelling.engine.model import Model, ahead, threads_kept
from raysp.labelling.engine.piece import commit_shard, label_piece
from raysp.labelling.engine.piece_reading import read_blocks
from raysp.labelling.planning.run_plan import Plan
from raysp.sink import layout, records
from raysp.sink.commit import Todo
from raysp.sink.receipts import ShardFailure
from raysp.sink.records import Natural
from raysp.storage.store import Store

logger = logging.getLogger(__name__)

Place = tuple[str, Natural, Natural]
"""Shard, first row, and end of the rows."""


@dataclass(frozen=True)
class _Record:
    fingerprint: str
    open: Sequence[Place]
    ended: Natural
    """Pieces that the process has ended."""


class Begins:
    """The begun pieces of one run. Any thread may begin one.

    Args:
        store: the sink.
        run_id: id of the run.
        fingerprint: fingerprint of the pipeline.
    """

    def __init__(self, store: Store, run_id: str, fingerprint: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._path = layout.begun_path(run_id)
        self._open: list[Place] = []
        self._ended = 0
        self._lock = threading.Lock()

    def begin(self, shard: str, piece: Piece) -> None:
        """Record a piece, before any work on it."""
        with self._lock:
            self._open.append((shard, piece.first, piece.end))
            data = json.dumps({"fingerprint": self._fingerprint, "open": self._open, "ended": self._ended})
            self._store.replace(self._path, data.encode())

    def end(self, shard: str, piece: Piece) -> None:
        """Record in memory that a piece is done; the next `begin` writes it."""
        place = shard, piece.first, piece.end
        with self._lock:
            if place in self._open:
                self._open.remove(place)
                self._ended += 1

    def close(self) -> None:
        """Delete the file, since the run ends without a crash."""
        self._store.delete(self._path)


def unfinished(store: Store, fingerprint: str) -> Mapping[Place, int]:
    """Return the pieces that crashed processes had begun, with the number of consecutive crashes over each.

    Crashes are counted back from the newest, until a process that had not begun the piece, had ended another one or
    had another pipeline, as after a correction of its code. Damaged files are logged and ignored.
    """
    times: Counter[Place] = Counter()
    counted: set[Place] = set()
    has_ended = False
    for path in sorted((entry.path for entry in store.list(layout.BEGUN)), reverse=True):
        try:
            record = records.parse(store.read(path), _Record)
        except ValueError as error:
            logger.warning("%s/%s: ignored a file that cannot be read (%s)", store.url, path, bounds.plain(error))
            continue
        if record.fingerprint != fingerprint:
            break
        places = {*record.open}
        times.update(places - counted)
        has_ended |= record.ended > 0
        counted |= times.keys() - places if not has_ended else times.keys()
    return times


def forget_begun(store: Store) -> None:
    """Delete the files of all runs."""
    for path in [entry.path for entry in store.list(layout.BEGUN)]:
        store.delete(path)


BLOCKS_AHEAD = 2
"""Blocks decoded while one is labelled."""
PIECES_AT_ONCE = 2
"""Pieces that a device labels at once: while one is staged, it labels blocks of the next one."""


Item = tuple[PieceTodo | ShardFailure, pa.Table | Exception | None]
"""A block of a piece, the error that ended its reading, or its end; or the failure of a shard."""


class Here:
    """Workers that label and commit in the calling process.

    Args:
        plan: the plan.
        job: job of the run.
        begins: record of the pieces that this run begins.
    """

    def __init__(self, plan: Plan, job: Job, begins: Begins) -> None:
        self._plan, self._job, self._begins = plan, job, begins
        self.commits = CommitsHere(job)

    def label(self, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of a plan, and yield the counts of each after every block and when it is staged."""
        job = self._job
        models: list[Model] = []
        with contextlib.ExitStack() as stack:
            stack.callback(self._begins.close)
            stack.enter_context(_own_debugger())
            if job.pipeline.reads_audio:
                sleep_while_waiting()  # before torch is imported
                stack.enter_context(threads_kept())
            decoder = stack.enter_context(Decoder())  # runs in other threads have their own
            items = stack.enter_context(contextlib.closing(self._items(decoder, on_piece)))
            if not job.code:
                items = stack.enter_context(contextlib.closing(ahead(items, BLOCKS_AHEAD)))
            try:
                try:
                    models = Model.of(job, in_this_thread=bool(job.code))
                except Exception as error:
                    raise RunError(f"node {socket.gethostname()}: {tracebacks.described(error)}") from error
                later = stack.enter_context(Decoder())  # while the other one reads the next piece
                yield from self._messages(models, items, later)
            finally:
                for model in models:
                    model.close()
                # Before memory is released: objects that a model refers to are kept.
                models = []
                release_memory(job.passes[0].settings.device)

    def _items(self, decoder: Decoder, on_piece: OnPiece) -> Generator[Item]:
        """Yield failures of shards, and of each piece its blocks, then its end or the error that ended it."""
        for todo in pieces_of(self._plan.todo):
            if isinstance(todo, ShardFailure):
                yield todo, None
                continue
            # Written before any work on the piece, since a crash leaves no time for it.
            self._begins.begin(todo.name, todo.part)
            on_piece(todo)
            try:
                for block in read_blocks(self._job, todo, decoder):
                    yield todo, block
                yield todo, None
            except Exception as error:
                yield todo, error

    def _messages(self, models: Sequence[Model], items: Iterator[Item], decoder: Decoder) -> Generator[Message]:
        """Label pieces in order; on a device the next one begins when all blocks of a piece are read."""
        actor = f"{socket.gethostname()}:{os.getpid()}"
        at_once = min(PIECES_AT_ONCE, models[0].at_once)
        stopped, later_passes = threading.Event(), threading.Lock()
        latest: PieceTodo | ShardFailure | None = None

        def next_piece(may_read: threading.Event, is_read: threading.Event) -> Generator[Message]:
            nonlocal latest

            def read(part: PieceTodo) -> Iterator[pa.Table]:
                if not part.number:
                    yield from _blocks(content, items)
                    is_read.set()
                    return
                with later_passes:
                    yield from read_blocks(self._job, part, decoder)

            try:
                may_read.wait()
                # Blocks of a piece that failed, which are read already, are dropped.
                rest = (item for item in items if item[0] is not latest)
                if stopped.is_set() or (item := next(rest, None)) is None:
                    return
                todo, content = item
                latest = todo
                if isinstance(todo, ShardFailure):
                    yield todo
                    return
                yield from label_piece(self._job, models, todo, read, self._job.store, actor)
                self._begins.end(todo.name, todo.part)
            finally:
                is_read.set()

        in_flight = deque[Generator[Message]]()
        is_read = threading.Event()
        is_read.set()
        try:
            while True:
                before, is_read = is_read, threading.Event()
                piece = next_piece(before, is_read)
                in_flight.append(piece if at_once == 1 else _begun(piece))
                if len(in_flight) == at_once:
                    message = None
                    for message in in_flight[0]:
                        yield message
                    if message is None:
                        return
                    in_flight.popleft()
        finally:
            stopped.set()
            for piece in in_flight:
                piece.close()


def _blocks(content: pa.Table | Exception | None, items: Iterator[Item]) -> Iterator[pa.Table]:
    """Yield the blocks of a piece from its first item on."""
    while content is not None:
        if isinstance(content, Exception):
            raise content
        yield content
        _, content = next(items)


def _begun(messages: Iterator[Message]) -> Generator[Message]:
    """Return messages that another thread makes from now on."""
    begun = ahead(chain(["begun"], messages), 0)
    next(begun)
    return cast("Generator[Message]", begun)


class CommitsHere:
    """Commits that run synchronously in `start`."""

    in_flight: Sized = ()

    def __init__(self, job: Job) -> None:
        self.job = job
        self._outcomes: list[Outcome] = []

    def start(self, todo: Todo, staged_bytes: int) -> None:
        """Commit a shard."""
        self._outcomes.append(commit_shard(self.job, todo.shard, todo.retry))

    def finished(self, seconds: float = 0.0) -> list[Outcome]:
        """Return the outcomes since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

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
