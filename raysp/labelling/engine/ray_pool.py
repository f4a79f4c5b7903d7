"""Labelling on Ray: the driver's loop over the actors that hold the model.

The driver knows which actor on which node has which piece, so it knows who is to blame. If a process dies with
several pieces, each of them is tried alone, after all others. A piece whose process dies alone, on a node that lives,
is halved; a row that does so `ALONE` times becomes an error row. The loss of a node is never the fault of a row.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import ray

from raysp import tracebacks
from raysp.bounds import plain
from raysp.cluster import resources
from raysp.cluster.waiting import Waiting
from raysp.corpus.shards import Piece
from raysp.errors import RunError
from raysp.labelling.engine.execution import OnPiece
from raysp.labelling.engine.job import Job, LostReader, Message, PieceTodo, RetriedPiece, pieces_of
from raysp.labelling.engine.ray_actor import PIECES_AT_ONCE, READER_CPUS, ModelActor
from raysp.labelling.engine.ray_commits import Commits
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.receipts import ShardFailure
from raysp.sink.run_log import RunLog
from raysp.words import count, run_again

logger = logging.getLogger(__name__)

ALONE = 2
"""Crashes of a row alone before it becomes an error row: one of them may be the fault of the machine."""
MOST_CRASHES = 200
"""Crashes of workers on one piece after which its shard fails."""
MOST_LOSSES = 100
"""Losses of nodes, or of readers that had not begun, after which the shard of a piece fails."""
MOST_LOADS = 3
"""Consecutive processes that may crash while they load the model."""
MORE_LOADS = 1
"""Consecutive failed loads beyond one per actor of the pool that end a run in which no actor has loaded its model."""
PAUSE_SECONDS = 30.0
"""Time before an actor is started again whose load failed while others work: it may get the same GPU."""
JUDGE_SECONDS = 5.0
"""Time before a crash is judged: a node being removed may answer slightly longer than its workers."""
LOOK_SECONDS = 1.0
"""Time between two looks at the cluster, and between two questions to actors for the counts of their pieces."""
WAIT_SECONDS = 0.2
"""Longest wait for Ray: no signal handler runs meanwhile."""
NODE_LABEL = "ray.io/node-id"
"""Label that Ray gives to every node."""
MOST_REASON = 500
"""Characters of the reason why an actor failed to start."""
DIED = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
"""Errors of calls to an actor whose process ended."""


@dataclass(eq=False)
class _Work:
    """A piece, and the crashes of processes that labelled it."""

    todo: PieceTodo
    is_suspect: bool = False
    """Whether a process died that labelled it among others, so that an actor gets it alone."""
    is_quiet: bool = False
    """Whether a process ran out of memory over it alone, so that nothing else runs at the same time."""
    crashes: int = 0
    """Crashes over it alone."""
    losses: int = 0


@dataclass(eq=False)
class _Actor:
    handle: Any
    node: str = ""
    name: str = ""
    is_loaded: bool = False
    reading: int = 0
    died_with: int = 0
    """Number of pieces that it had when it died."""
    works: list[_Work] = field(default_factory=list)
    """Pieces that it labels now."""


@dataclass(frozen=True)
class _Crash:
    """The death of a process that had a piece, until it is known whether its node lives."""

    work: _Work
    node: str
    was_alone: bool
    is_memory: bool
    due: float


class RayPool:
    """Workers on Ray: a pool of model actors, and tasks that read and commit.

    Args:
        plan: the plan.
        job: job of the run.
        log: log of the run.
    """

    def __init__(self, plan: Plan, job: Job, log: RunLog) -> None:
        settings, pool = plan.settings, plan.pipeline.label.pool
        self._plan, self._log = plan, log
        self._size = plan.pool_size
        self._job = ray.put(job)
        self.commits = Commits(self._job)
        requests = {"CPU": settings.cpus_per_actor.number, "GPU": settings.gpus_per_actor, "memory": pool.memory or 0}
        self._request = {name: float(amount) for name, amount in requests.items() if amount}
        self._actors: list[_Actor] = []
        self._left = plan.pieces_todo
        """Pieces, and parts of pieces, that are not done."""
        self._queue: deque[_Work] = deque()
        self._suspects: deque[_Work] = deque()
        self._crashes: list[_Crash] = []
        self._crashes_of: Counter[tuple[str, Piece]] = Counter()
        """Crashes by recorded piece."""
        self._in_flight: dict[ray.ObjectRef[Any], tuple[_Actor, _Work]] = {}
        self._starting: dict[ray.ObjectRef[Any], _Actor] = {}
        self._counting: dict[ray.ObjectRef[Any], _Actor] = {}
        self._failed_nodes: set[str] = set()
        self._failed_loads = self._crashed_loads = 0
        self._may_start = 0.0
        self._looked = float("-inf")
        self._capacity = 0
        self._waiting = Waiting(lambda message: log.urgent_event("waiting", message=message))

    def label(self, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of the plan, and yield counts and failures.

        Raises:
            RunError: no actor can load the model, resources are missing for too long, or Ray failed.
        """
        pieces = pieces_of(self._plan.todo)
        try:
            while True:
                yield from self._take(pieces)
                self._look()
                self._grow()
                self._hand_out(on_piece)
                if not (self._queue or self._suspects or self._crashes or self._in_flight):
                    return
                yield from self._collect()
                yield from self._judge()
                self._waiting.look(*self._missing())
        except ray.exceptions.RayError as error:
            raise RunError(run_again(tracebacks.described(error))) from error
        finally:
            for actor in self._actors:
                ray.kill(actor.handle)

    def _take(self, pieces: Iterator[PieceTodo | ShardFailure]) -> Iterator[ShardFailure]:
        """Queue pieces that actors can take now."""
        while len(self._queue) < PIECES_AT_ONCE * max(1, len(self._actors)):
            piece = next(pieces, None)
            if piece is None:
                return
            if isinstance(piece, ShardFailure):
                self._left -= 1
                yield piece
            else:
                self._queue.append(_Work(piece))

    def _missing(self) -> tuple[str, Mapping[str, float]]:
        """Return the kind of worker that the run waits for, empty if none, and its requested resources."""
        if not any(actor.is_loaded for actor in self._actors):
            is_missing = not any(actor.node for actor in self._actors)
            return "a model actor" if is_missing else "", self._request
        is_missing = bool(self._in_flight) and not any(actor.reading for actor in self._actors)
        return "a reader" if is_missing else "", {"CPU": READER_CPUS}

    # -- actors -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Look at the cluster, and ask actors for the counts of their pieces, every `LOOK_SECONDS`."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._capacity = self._room()
        for actor in self._actors:
            if actor.works and actor not in self._counting.values():
                self._counting[actor.handle.so_far.remote()] = actor

    def _grow(self) -> None:
        """Start actors while pieces wait for some, and end those for which there is no piece."""
        num_actors = min(self._size.high, self._left, max(self._size.low, self._capacity))
        may_start = time.monotonic() >= self._may_start or not any(actor.is_loaded for actor in self._actors)
        while len(self._actors) < num_actors and may_start:
            self._start()
        waiting = self._queue or self._suspects or self._crashes
        if not waiting and len(self._actors) > num_actors:
            idle = [actor for actor in self._actors if actor.is_loaded and not actor.works]
            for actor in idle[: len(self._actors) - num_actors]:
                self._log.event("actor_released", actor=actor.name, node=actor.node)
                self._end(actor)

    def _room(self) -> int:
        """Return how many actors may start: on CPUs only as many as leave one to readers, on GPUs any number."""
        if "GPU" in self._request:
            return self._size.high
        cpus = sum(total.get("CPU", 0.0) for total in resources.totals().values())
        return int((cpus - READER_CPUS) // self._request["CPU"])

    def _start(self) -> None:
        avoided = self._avoided()
        selector = {"label_selector": {NODE_LABEL: f"!in({','.join(sorted(avoided))})"}} if avoided else {}
        options: dict[str, Any] = {
            "num_cpus": self._request["CPU"],
            "num_gpus": self._request.get("GPU"),
            "memory": self._request.get("memory"),
            "max_restarts": 0,
            "max_concurrency": PIECES_AT_ONCE + 1,
            **selector,
        }
        actor = _Actor(ray.remote(cast("Any", ModelActor)).options(**options).remote([self._job]))
        self._actors.append(actor)
        self._starting[actor.handle.place.remote()] = actor
        self._starting[actor.handle.load.remote()] = actor

    def _avoided(self) -> frozenset[str]:
        """Return the nodes on which no actor starts since loads failed there; none if no other node can take one."""
        other_nodes = (total for node, total in resources.totals().items() if node not in self._failed_nodes)
        requests = self._request.items()
        takes = any(all(total.get(name, 0.0) >= amount for name, amount in requests) for total in other_nodes)
        return frozenset(self._failed_nodes) if takes else frozenset()

    def _end(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        ray.kill(actor.handle)

    def _started(self, actor: _Actor, ref: "ray.ObjectRef[Any]") -> None:
        """Record that an actor has a place, or has loaded its model."""
        if actor not in self._actors:  # it has ended
            return
        try:
            answer = ray.get(ref)
        except DIED as error:
            self._end(actor)
            self._died_loading(actor, error)
            return
        if answer is None:
            actor.is_loaded = True
            self._failed_loads = self._crashed_loads = 0
            self._log.event("actor_started", actor=actor.name, node=actor.node)
        elif isinstance(answer, str):
            self._end(actor)
            self._load_failed(answer, actor)
        else:
            actor.node, actor.name = answer

    def _died_loading(self, actor: _Actor, error: Exception) -> None:
        """Judge the death of a starting actor: the loss of its node is not the fault of the model."""
        if getattr(error, "preempted", False) or (actor.node and not resources.alive([actor.node])):
            self._log.event("actor_lost", actor=actor.name, node=actor.node)
            return
        self._crashed_loads += bool(actor.node)
        reason = (
            f"{self._plan.pipeline.label.checkpoint}: {self._crashed_loads} consecutive processes crashed while "
            "loading this model, most likely out of memory: lower pool.actors, or raise pool.memory"
        )
        self._load_failed(reason if self._crashed_loads >= MOST_LOADS else plain(error, MOST_REASON), actor)

    def _load_failed(self, reason: str, actor: _Actor) -> None:
        """Start the next actor elsewhere or later; raise RunError if no actor can load the model."""
        logger.warning("a model actor failed to start; starting another one: %s", reason)
        self._log.urgent_event("actor_failed", reason=reason)
        is_new = bool(actor.node) and actor.node not in self._failed_nodes
        self._failed_nodes |= {actor.node} - {""}
        if any(other.is_loaded for other in self._actors):
            self._failed_loads, self._may_start = 0, time.monotonic() + PAUSE_SECONDS
            return
        self._failed_loads = 0 if is_new and self._avoided() else self._failed_loads + 1
        if self._failed_loads > self._size.low + MORE_LOADS or self._crashed_loads >= MOST_LOADS:
            raise RunError(run_again(reason))

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _hand_out(self, on_piece: OnPiece) -> None:
        """Assign pieces to actors, one to each before any gets a second one; suspects when no other piece is left."""
        for most in range(1, PIECES_AT_ONCE + 1):
            for actor in self._actors:
                if actor.is_loaded and len(actor.works) < most and (work := self._next_for(actor)):
                    actor.works.append(work)
                    self._in_flight[actor.handle.label.remote(work.todo)] = actor, work
                    on_piece(work.todo)

    def _next_for(self, actor: _Actor) -> _Work | None:
        if self._queue:
            return self._queue.popleft()
        works = [work for _, work in self._in_flight.values()]
        if not self._suspects or actor.works or not all(work.is_suspect for work in works):
            return None
        if any(work.is_quiet for work in works) or (self._suspects[0].is_quiet and works):
            return None
        return self._suspects.popleft()

    def _collect(self) -> Iterator[Message]:
        """Wait shortly, and yield the messages that have arrived."""
        refs = [*self._in_flight, *self._starting, *self._counting]
        if not refs:
            time.sleep(WAIT_SECONDS)
            return
        ready, _ = ray.wait(refs, num_returns=1, timeout=WAIT_SECONDS)
        if ready and len(refs) > 1:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            if ref in self._starting:
                self._started(self._starting.pop(ref), ref)
            elif ref in self._counting:
                yield from self._so_far(self._counting.pop(ref), ref)
            else:
                yield from self._ended(*self._in_flight.pop(ref), ref)

    def _so_far(self, actor: _Actor, ref: "ray.ObjectRef[Any]") -> Iterator[Message]:
        try:
            state = ray.get(ref)
        except DIED:
            return  # the calls for its pieces raise too
        places = {(work.todo.name, work.todo.part) for work in actor.works}
        actor.reading = state.reading
        yield from (piece for piece in state.pieces if piece.place in places)

    def _ended(self, actor: _Actor, work: _Work, ref: "ray.ObjectRef[Any]") -> Iterator[Message]:
        try:
            message, noted = ray.get(ref)
        except DIED as error:
            yield from self._died(actor, work, error)
            return
        actor.works.remove(work)
        tracebacks.keep(noted)
        if isinstance(message, LostReader):
            yield from self._crashed(work, message.node, was_alone=True, is_memory=message.is_memory)
            return
        self._left -= 1
        yield message

    def _died(self, actor: _Actor, work: _Work, error: Exception) -> Iterator[Message]:
        """Note the death of an actor over one of its pieces."""
        if actor in self._actors:
            actor.died_with = len(actor.works)
            self._log.event("actor_lost", actor=actor.name, node=actor.node)
            self._end(actor)
        actor.works.remove(work)
        is_memory = isinstance(error, ray.exceptions.OutOfMemoryError)
        node = "" if getattr(error, "preempted", False) else actor.node
        yield from self._crashed(work, node, was_alone=actor.died_with == 1, is_memory=is_memory)

    def _crashed(self, work: _Work, node: str, *, was_alone: bool, is_memory: bool) -> Iterator[Message]:
        self._crashes.append(_Crash(work, node, was_alone, is_memory, time.monotonic() + JUDGE_SECONDS))
        yield RetriedPiece(work.todo.name, work.todo.part)

    # -- blame --------------------------------------------------------------------------------------------------------

    def _judge(self) -> Iterator[Message]:
        """Queue the pieces of processes that died, as far as it is known whether their nodes live."""
        now = time.monotonic()
        due = [crash for crash in self._crashes if crash.due <= now]
        if not due:
            return
        self._crashes = [crash for crash in self._crashes if crash.due > now]
        alive = resources.alive({crash.node for crash in due if crash.node})
        for crash in due:
            work = crash.work
            if crash.node not in alive:
                work.losses += 1
                self._queue.append(work)
                if work.losses >= MOST_LOSSES:
                    self._queue.pop()
                    yield self._abandoned(work, f"{count(work.losses, 'worker')} were lost")
                continue
            place = work.todo.name, work.todo.piece
            self._crashes_of[place] += 1
            if self._crashes_of[place] == 1:
                logger.warning("%s: a worker crashed", work.todo)
                part = work.todo.part
                self._log.urgent_event("piece_failed", shard=work.todo.name, first=part.first, end=part.end)
            if self._crashes_of[place] >= MOST_CRASHES:
                yield self._abandoned(work, f"{count(MOST_CRASHES, 'worker')} crashed")
            else:
                self._suspects.extend(self._narrowed(work, crash))

    def _narrowed(self, work: _Work, crash: _Crash) -> Iterable[_Work]:
        """Return the parts to try next of a piece whose process crashed."""
        if not crash.was_alone:
            return [replace(work, is_suspect=True)]
        if crash.is_memory and not work.is_quiet:
            return [replace(work, is_suspect=True, is_quiet=True)]
        if len(work.todo.rows) > 1:
            self._left += 1
            return [_Work(half, is_suspect=True, is_quiet=work.is_quiet) for half in work.todo.halves()]
        if work.crashes + 1 < ALONE:
            return [replace(work, is_suspect=True, crashes=work.crashes + 1)]
        logger.warning("%s: row %d crashed the workers that labelled it", work.todo.name, work.todo.rows[0])
        return [_Work(replace(work.todo, has_crashed=True), is_suspect=True)]

    def _abandoned(self, work: _Work, why: str) -> ShardFailure:
        self._left -= 1
        rows = f"rows {work.todo.part.first} to {work.todo.part.end}"
        return ShardFailure(work.todo.name, f"{rows}: {why}. See the logs of the workers for the cause, and run again")
