"""The driver's judgement of dead processes: which rows are to blame, which loads end a run.

A stand-in takes the place of Ray in the pool of actors: no test could have a real one end pieces one at a time, lose a
node at each moment and run out of memory beside others.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError

from raysp.cluster.resources import PoolSize
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine import ray_pool
from raysp.labelling.engine.job import LabelledPiece, Message, PieceTodo, RetriedPiece
from raysp.labelling.engine.ray_actor import LostReader, Place, SoFar
from raysp.sink.commit import Todo
from raysp.sink.receipts import Counts, PieceReceipt

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
        counts = Counts(len(rows), blocks=1, audio_seconds=2.0 * len(rows))
        receipt = PieceReceipt(todo.name, todo.part.first, todo.part.end, counts, "x")
        message: Message | LostReader = end or LabelledPiece(
            receipt, is_staged=True, num_rows=todo.part.num_rows, seconds_left=0.0
        )
        ref.answer, ref.is_ready = (message, {}), True

    # -- a run

    def run(self, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
        """Label a shard of two pieces, and return the messages."""
        resources = SimpleNamespace(
            alive=lambda ids: self.alive & set(ids), totals=lambda: {node: {"CPU": 4.0} for node in self.nodes}
        )
        for name, value in {"ray": self, "time": self.time, "resources": resources}.items():
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


ROWS = set(range(100))
WHOLE = {tuple(range(piece.first, piece.end)) for piece in PIECES}


def kills(deadly: set[int], error: object = None):
    """Return a function that kills the actor of a piece with such rows."""
    return lambda rows, tried: (error or ActorDiedError()) if deadly & set(rows) else None


def check(cluster: Cluster, deadly: set[int]) -> None:
    assert sorted(cluster.crashed) == sorted(deadly)
    assert sorted(cluster.labelled) == sorted(ROWS - deadly)


@pytest.mark.parametrize("deadly", [{0}, {3, 4}, {0, 50, 99}])
@pytest.mark.parametrize("reads", [False, True], ids=["actor", "reader"])
def test_exactly_the_rows_that_kill_processes_are_blamed(monkeypatch, deadly, reads):
    cluster = Cluster(kills(deadly, LostReader("a", is_memory=False) if reads else None))
    messages = cluster.run(monkeypatch)
    check(cluster, deadly)
    staged = [one for one in messages if isinstance(one, LabelledPiece)]
    assert sum(one.receipt.end - one.receipt.first for one in staged) == 100
    assert sum(isinstance(one, RetriedPiece) for one in messages) >= sum(cluster.tried.values()) - len(staged)


def test_a_row_is_found_after_a_crash_per_halving_and_the_other_piece_is_not_tried_again(monkeypatch):
    cluster = Cluster(kills({30}))
    cluster.run(monkeypatch)
    assert 1 <= len(cluster.beside) <= 1 + math.ceil(math.log2(50)) + ray_pool.ALONE
    assert cluster.tried[30,] == ray_pool.ALONE + 1  # the last time, it becomes an error row
    assert cluster.tried[tuple(range(50, 100))] == 1


@pytest.mark.parametrize("error", [LostError(), LostReader("gone", is_memory=False), LostReader("", is_memory=True)])
def test_the_loss_of_a_node_is_not_the_fault_of_a_row(monkeypatch, error):
    cluster = Cluster(lambda rows, tried: error if 5 in rows and tried <= 20 else None)
    cluster.run(monkeypatch)
    check(cluster, set())
    assert set(cluster.tried) == WHOLE  # nothing was halved


@pytest.mark.parametrize("error", [OutOfMemoryError("killed"), LostReader("a", is_memory=True)])
def test_a_lack_of_memory_is_the_fault_of_a_row_only_if_nothing_runs_beside_it(monkeypatch, error):
    cluster = Cluster(kills({5}, error))
    cluster.run(monkeypatch)
    check(cluster, {5})
    if isinstance(error, OutOfMemoryError):
        assert {in_hand for rows, in_hand in cluster.beside if rows == (5,)} == {1}


def test_a_row_that_ran_out_of_memory_only_beside_others_is_labelled(monkeypatch):
    def ends(rows, tried):
        in_hand = sum(len(one.pieces) for one in cluster.handles)
        return OutOfMemoryError("killed") if 5 in rows and in_hand > 1 else None

    cluster = Cluster(ends)
    cluster.run(monkeypatch)
    check(cluster, set())
    assert set(cluster.tried) == WHOLE


def test_an_actor_that_dies_is_replaced_once(monkeypatch):
    cluster = Cluster(lambda rows, tried: LostError() if 5 in rows and tried == 1 else None, high=1)
    cluster.run(monkeypatch)
    assert cluster.events == ["actor_started", "actor_lost", "actor_started", "actor_released"]
    assert all(handle.is_dead for handle in cluster.handles)


def test_the_next_actor_starts_on_a_node_on_which_no_load_has_failed(monkeypatch):
    cluster = Cluster(loads=lambda node: "a bad GPU" if node == "a" else None, high=1)
    cluster.run(monkeypatch)
    check(cluster, set())
    assert [one.options.get("label_selector") for one in cluster.handles] == [None, {"ray.io/node-id": "!in(a)"}]
    assert cluster.events == ["actor_failed", "actor_started", "actor_released"]
