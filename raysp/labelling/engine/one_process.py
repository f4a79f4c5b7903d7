"""Labelling of a small run in one process beside the driver, without Ray, whose start takes longer than such a run.

The process runs the code of Ray's workers. It is separate from the driver, since a model may crash or hang. If it ends
early, Ray's workers take over: they repeat crashed work, and find the rows at fault.
"""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raysp.corpus.shards import Piece
from raysp.labelling.engine.in_process import InProcessCommits
from raysp.labelling.engine.label_process import EndedEarlyError, LabelProcess
from raysp.labelling.engine.workers.attempts import Attempts
from raysp.labelling.engine.workers.job import Job, PieceTodo, serialised
from raysp.labelling.engine.workers.messages import LabelledBlock, Message
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.receipts import ShardFailure
from raysp.sink.stage import is_complete
from raysp.sink.todo import Retry, Todo

if TYPE_CHECKING:
    from raysp.labelling.engine.execution import OnPiece, Workers
    from raysp.labelling.engine.workers.attempts import Attempts

logger = logging.getLogger(__name__)


class OneProcess:
    """Workers of a small run: one process labels, the driver commits.

    Args:
        process: the process, which may have started.
        start_ray: starts Ray, and returns the workers that take over and their ledger.
    """

    def __init__(self, process: LabelProcess, start_ray: "Callable[[], tuple[Workers, Attempts]]") -> None:
        self._process = process
        self._start_ray = start_ray
        self._on_ray: tuple[Workers, Attempts] | None = None

    def label(self, plan: Plan, job: Job, on_piece: "OnPiece") -> Generator[Message]:
        """Label the pieces of a plan, and yield a message per block; `on_piece` is called with each piece taken."""
        if self._on_ray is None:
            done = _Done()
            try:
                for message in self._label(plan, job, on_piece):
                    done.add(message)
                    yield message
                return
            except EndedEarlyError as error:
                logger.warning("%s; continuing on Ray", error)
            plan = replace(plan, todo=tuple(map(done.left, plan.todo)))
            if not plan.pieces_todo:
                return
            self._on_ray = self._start_ray()
        workers, attempts = self._on_ray
        yield from workers.label(plan, replace(job, attempts=attempts), on_piece)

    def bisect(self, plan: Plan, job: Job, pieces: Sequence[PieceTodo]) -> Iterator[Message]:
        """Label pieces that crashed Ray's workers, and yield messages."""
        if self._on_ray is None:
            return iter(())
        workers, attempts = self._on_ray
        return workers.bisect(plan, replace(job, attempts=attempts), pieces)

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> InProcessCommits:
        """Return an empty set of commits in the driver."""
        return InProcessCommits(job, retries)

    def _label(self, plan: Plan, job: Job, on_piece: "OnPiece") -> Iterator[Message]:
        pieces: list[str] = []
        for one in serialised(plan.todo):
            if isinstance(one, ShardFailure):
                yield one
            else:
                todo, item = one
                on_piece(todo)
                pieces.append(item)
        if pieces:
            with contextlib.closing(self._process.label(replace(job, attempts=Attempts()), pieces)) as messages:
                yield from messages


class _Done:
    """Pieces whose blocks are all staged, and shards that failed."""

    def __init__(self) -> None:
        self._blocks: defaultdict[tuple[str, Piece], set[tuple[int, int]]] = defaultdict(set)
        self._failed: set[str] = set()

    def add(self, message: Message) -> None:
        """Count a message."""
        if isinstance(message, LabelledBlock):
            block = message.receipt
            self._blocks[block.shard, Piece(block.first, block.end)].add((block.k, block.of))
        elif isinstance(message, ShardFailure):
            self._failed.add(message.shard)

    def left(self, todo: Todo) -> Todo:
        """Return the remaining work on a shard."""
        if (name := todo.shard.name) in self._failed:
            return replace(todo, pieces=())
        return replace(todo, pieces=tuple(one for one in todo.pieces if not is_complete(self._blocks[name, one])))
