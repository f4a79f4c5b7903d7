"""The job of a run, which every worker receives; the pieces that the driver sends, and the messages about them."""

import os
import pickle
from bdb import BdbQuit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple, Self

import pyarrow as pa

from raysp import tracebacks
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import RayspError, ShardError
from raysp.labelling import assembly
from raysp.labelling.planning.run_plan import Pass, Plan, output_schema
from raysp.sink.commit import Retry, Todo
from raysp.sink.footer import RUN
from raysp.sink.receipts import PieceReceipt, ShardFailure, ShardReceipt
from raysp.sink.sinks import Sink
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, load_function
from raysp.storage.store import Store

HANG_SECONDS = 900.0
"""Time after which a block counts as hung; a block is sized for some ten seconds."""
HANG_VARIABLE = "RAYSP_HANG_SECONDS"
"""Overrides `HANG_SECONDS`, for models that need longer for a block, and for tests."""


@dataclass(frozen=True)
class Job:
    """Data that workers need, the same for every task of a run."""

    passes: tuple[Pass, ...]
    """The `Label` steps with their settings, the first one with the whole pipeline. Paths of checkpoints are paths on
    the driver."""
    fingerprint: str
    stage_id: str
    """Hash of everything up to the last `Label`, in the names of staged results."""
    metadata: Mapping[str, str]
    fault_injection: Mapping[str, str]
    """Settings of `sink.fault_injection`, for tests."""
    code: UserCode
    """Code from outside raysp that workers import."""
    functions: Mapping[str, Callable[..., object]]
    """Functions of the main program, which workers cannot import, by their names in the pipeline; pickled by value."""
    hang_seconds: float = 0.0
    """Time after which a single operation of a worker counts as hung; 0: no limit."""
    carried: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Types of the columns that label shards carry over."""

    @classmethod
    def of(cls, plan: Plan, run_id: str = "", faults: Mapping[str, str] = MappingProxyType({})) -> Self:
        """Return the job of a plan.

        Args:
            plan: the plan.
            run_id: id of the run, in the metadata of its label shards.
            faults: settings of `sink.fault_injection`, for tests.
        """
        names, settings = (name for step in plan.pipeline.steps for name in step.functions), plan.settings
        return cls(
            passes=(Pass(plan.pipeline, settings), *plan.passes[1:]),
            fingerprint=plan.fingerprint,
            stage_id=plan.stage_id,
            metadata={"checkpoint_digest": settings.checkpoint_digest, "dtype": settings.dtype, RUN: run_id},
            fault_injection=faults,
            code=plan.code,
            functions={name: load_function(name) for name in names if name.startswith("__main__:")},
            carried=plan.corpus.carried,
        )

    @property
    def pipeline(self) -> Pipeline:
        """The whole pipeline."""
        return self.passes[0].pipeline

    @cached_property
    def store(self) -> Store:
        """Store of the sink, opened once in each process."""
        return Sink.of(self.pipeline.sink).store

    @cached_property
    def joins(self) -> Sequence[Callable[[pa.Table], pa.Table]]:
        """For each pass the function that makes rows of its labelled windows, in order."""
        return [assembly.joining(step) for step in self.passes]

    @cached_property
    def output_schema(self) -> pa.Schema:
        """Columns that all steps add."""
        return output_schema(*self.passes)

    def __reduce__(self) -> tuple[Callable[..., "Job"], tuple[UserCode, bytes, dict[str, object]]]:
        """Pickle so that a worker installs the user's code before it unpickles values that use it."""
        import cloudpickle

        values = {part.name: getattr(self, part.name) for part in fields(self)}
        made_of_code = {name: values.pop(name) for name in ("passes", "functions")}
        return _arrived, (self.code, cloudpickle.dumps(made_of_code), values)


def sleep_while_waiting() -> None:
    """Make waiting threads of models sleep; called before torch is imported.

    Spinning takes the core that decoding and the driver need, and doubles the CPU time of two threads if other programs
    run (docs/decisions/007).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _arrived(code: UserCode, made_of_code: bytes, values: dict[str, object]) -> Job:
    """Restore the job on a worker, before torch is imported there."""
    sleep_while_waiting()
    tracebacks.refuse_debuggers()
    code.install()
    return Job(**pickle.loads(made_of_code), **values)  # type: ignore[arg-type]


def hang_seconds() -> float:
    """Return the seconds after which a worker's operation counts as hung."""
    return float(os.environ.get(HANG_VARIABLE) or HANG_SECONDS)


@dataclass(frozen=True)
class PieceTodo:
    """A piece to label, a part of it, or its retried rows."""

    shard: Shard
    piece: Piece
    """The piece as recorded, which is read as a whole."""
    part: Piece
    """The rows of the piece to label and stage."""
    retry: Retry | None = None
    has_crashed: bool = False
    """Whether this is one row that crashes its workers, and only becomes an error row."""
    only: tuple[int, ...] | None = None
    """Numbers of the rows of `part` to label; None: all."""
    number: int = 0
    """Number of the pass that the rows are read for."""
    columns: pa.Table | None = None
    """For each row the columns that the outputs of a later pass read, under their names; None: the source has them."""

    @property
    def rows(self) -> Sequence[int]:
        """Numbers of the rows to label, in the shard."""
        if self.only is not None:
            return self.only
        return self.retry.of(self.part) if self.retry else range(self.part.first, self.part.end)

    @property
    def name(self) -> str:
        """Name of the shard."""
        return self.shard.name

    def __str__(self) -> str:
        """Return the name of the shard, and the rows."""
        return f"{self.name}: rows {self.part.first} to {self.part.end}"

    def halves(self) -> tuple[Self, Self]:
        """Return two parts with half of the rows each; there must be several."""
        middle = self.rows[len(self.rows) // 2]
        first, end = self.part.first, self.part.end
        return replace(self, part=Piece(first, middle)), replace(self, part=Piece(middle, end))


def pieces_of(todos: Iterable[Todo]) -> Iterator[PieceTodo | ShardFailure]:
    """Yield the pieces to label, with what they need of their shard and retry; or the failure of a shard without it."""
    for todo in todos:
        for part in todo.pieces:
            piece = next(whole for whole in todo.shard.pieces if whole.first <= part.first and part.end <= whole.end)
            retry = todo.retry
            if retry is not None and retry.rows is not None:
                retry = replace(retry, rows=tuple(retry.of(part)))
            try:
                yield PieceTodo(replace(sources.narrow(todo.shard, piece), pieces=(piece,)), piece, part, retry)
            except ShardError as error:
                yield ShardFailure(todo.shard.name, str(error))


class RowError(NamedTuple):
    """An error row."""

    shard: str
    row: int
    error_type: str
    message: str


@dataclass(frozen=True)
class LabelledPiece:
    """A piece, or a part of one: staged, or labelled so far."""

    receipt: PieceReceipt
    is_staged: bool
    num_rows: int
    """Rows of the piece to label."""
    seconds_left: float = 0.0
    """Seconds of audio that are not labelled yet, by headers."""
    examples: Sequence[RowError] = ()
    """A few error rows."""
    memory_bytes: int = 0
    """Highest memory of the model's process so far (`ops.labelling.Figures`)."""

    @property
    def place(self) -> tuple[str, Piece]:
        """Shard, and the rows of the piece."""
        return self.receipt.shard, Piece(self.receipt.first, self.receipt.end)


@dataclass(frozen=True)
class RetriedPiece:
    """A piece that is labelled again, because the process that labelled it was lost."""

    shard: str
    part: Piece


class LostReader(NamedTuple):
    """The process that read a piece was lost."""

    node: str
    """Node on which it had begun; empty: it had not."""
    is_memory: bool
    """Whether it was ended because the node ran out of memory."""


@dataclass(frozen=True)
class FatalFailure:
    """A failure that no other shard would escape, which ends the run."""

    reason: str


class ReadingError(Exception):
    """The rows of a piece are not read.

    Args:
        outcome: the message of the piece.
    """

    def __init__(self, outcome: "Message | LostReader") -> None:
        super().__init__(outcome)
        self.outcome = outcome


Message = LabelledPiece | RetriedPiece | ShardFailure | FatalFailure
Outcome = ShardReceipt | ShardFailure | FatalFailure
"""Result of a commit."""


def shard_failure(shard: str, error: BaseException) -> ShardFailure:
    """Return the failure of a shard, and note the traceback of its cause, if it has one besides its message."""
    if isinstance(error, BdbQuit):  # of workers alone: elsewhere it has become a KeyboardInterrupt
        where = tracebacks.place(error) or "a function"
        return ShardFailure(shard, f"{where}: workers of Ray have no terminal for a debugger; run with --engine here")
    tracebacks.raise_if_stopped(error)
    if isinstance(error, RayspError):
        if error.__cause__ is not None:
            tracebacks.note(error.__cause__)
        return ShardFailure(shard, str(error))
    tracebacks.note(error)
    return ShardFailure(shard, tracebacks.described(error))
