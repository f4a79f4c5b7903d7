"""A stand-in for Ray under the pool of actors: pieces end one at a time, or kill their actors."""

import contextlib
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError

from raysp.cluster.resources import PoolSize
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine import ray_pool
from raysp.labelling.engine.job import Message, PieceTodo
from raysp.labelling.engine.ray_actor import LostReader, Place, SoFar
from raysp.sink.commit import Todo
from tests.labelling.engine.pieces import labelled

PIECES = (Piece(0, 50), Piece(50, 100))
PIECE_SECONDS = 1.0
SHARD = Shard("a.parquet", "a", 1, "", 100, "0", PIECES)


class LostError(ActorDiedError):
    """The death of an actor with its node."""


class Ref:
    """A reference to an answer, or to an error that is raised."""

    def __init__(self, answer: object = None, *, is_ready: bool = True) -> None:
        self.answer = answer
        self.is_ready = is_ready

    def get(self) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Handle:
    """An actor."""

    def __init__(self, cluster: "Cluster", number: int, options: dict[str, Any]) -> None:
        self.cluster = cluster
        self.options = options
        self.node = cluster.node_of(options, number)
        self.name = f"actor{number}"
        self.pieces: dict[Ref, PieceTodo] = {}
        self.is_dead = False
        for name in ("place", "load", "label", "so_far"):
            setattr(self, name, SimpleNamespace(remote=getattr(self, f"_{name}")))

    def _place(self) -> Ref:
        return Ref(Place(self.node, self.name))

    def _load(self) -> Ref:
        return Ref(self.cluster.loads(self.node))

    def _label(self, todo: PieceTodo) -> Ref:
        ref = Ref(is_ready=False)
        self.pieces[ref] = todo
        self.cluster.tried[tuple(todo.rows)] += 1
        return ref

    def _so_far(self) -> Ref:
        return Ref(SoFar((), 0))

    def die(self, error: Exception) -> None:
        self.is_dead = True
        for ref in self.pieces:
            ref.answer, ref.is_ready = error, True
        self.pieces.clear()


class Cluster:
    """Nodes, and actors on them.

    Args:
        ends: what the work on a piece ends with, for its rows and how often they were tried: the death of the actor, a
            reader that is lost, or None, a label for each of its rows.
        loads: the answer of an actor of a node that loads its model: None, the reason of a failure, or its death.
        high: largest number of actors.
    """

    def __init__(
        self,
        ends: Callable[[tuple[int, ...], int], Exception | LostReader | None] = lambda rows, tried: None,
        *,
        loads: Callable[[str], object] = lambda node: None,
        high: int = 2,
    ) -> None:
        self.ends = ends
        self.loads = loads
        self.size = PoolSize(1, high)
        self.nodes = ["a", "b"]
        self.alive = {"a", "b"}
        self.now = 0.0
        self.handles: list[Handle] = []
        self.tried: Counter[tuple[int, ...]] = Counter()
        self.labelled: list[int] = []
        self.crashed: list[int] = []
        self.beside: list[tuple[tuple[int, ...], int]] = []
        """Rows of pieces, with the number of all pieces in hand when their actor died."""
        self.events: list[str] = []
        self.exceptions = ray.exceptions

    @property
    def time(self) -> SimpleNamespace:
        return SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep)

    def node_of(self, options: dict[str, Any], number: int) -> str:
        words = options.get("label_selector", {}).get(ray_pool.NODE_LABEL, "!in()")
        avoided = words.removeprefix("!in(").removesuffix(")").split(",")
        free = [node for node in self.nodes if node not in avoided]
        return free[number % len(free)]

    # -- what the pool calls of Ray

    def put(self, value: object) -> object:
        return value

    def remote(self, actor: type) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda job: self._start(options)))

    def _start(self, options: dict[str, Any]) -> Handle:
        self.handles.append(Handle(self, len(self.handles), options))
        return self.handles[-1]

    def kill(self, handle: Handle) -> None:
        handle.is_dead = True

    def get(self, ref: Ref) -> object:
        return ref.get()

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        if timeout:
            self._sleep(PIECE_SECONDS)
            self._end_a_piece()
        return [ref for ref in refs if ref.is_ready], [ref for ref in refs if not ref.is_ready]

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _end_a_piece(self) -> None:
        handle = next((one for one in self.handles if one.pieces), None)
        if handle is None:
            return
        ref, todo = next(iter(handle.pieces.items()))
        rows = tuple(todo.rows)
        end = None if todo.has_crashed else self.ends(rows, self.tried[rows])
        in_hand = sum(len(one.pieces) for one in self.handles)
        if isinstance(end, Exception):
            self.alive = {"a", "b"} - ({handle.node} if isinstance(end, LostError) else set())
            self.beside.append((rows, in_hand))
            handle.die(end)
            return
        del handle.pieces[ref]
        if end is None:
            (self.crashed if todo.has_crashed else self.labelled).extend(rows)
        message: Message | LostReader = end or labelled(todo.name, todo.part, len(rows))
        ref.answer, ref.is_ready = (message, {}), True

    # -- a run

    def run(self, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
        """Label a shard of two pieces, and return the messages."""
        for name, value in {
            "ray": self,
            "time": self.time,
            "resources": SimpleNamespace(
                alive=lambda ids: self.alive & set(ids), totals=lambda: {node: {"CPU": 4.0} for node in self.nodes}
            ),
        }.items():
            monkeypatch.setattr(ray_pool, name, value)
        pool = SimpleNamespace(memory=None)
        plan = SimpleNamespace(
            settings=SimpleNamespace(cpus_per_actor=SimpleNamespace(number=1), gpus_per_actor=0.0),
            pipeline=SimpleNamespace(label=SimpleNamespace(pool=pool, checkpoint="a checkpoint")),
            pool_size=self.size,
            pieces_todo=len(PIECES),
            todo=(Todo(SHARD, PIECES),),
        )
        log = SimpleNamespace(**dict.fromkeys(("event", "urgent_event"), lambda kind, **_: self.events.append(kind)))
        with contextlib.closing(ray_pool.RayPool(plan, None, log).label(lambda todo: None)) as messages:
            return list(messages)
