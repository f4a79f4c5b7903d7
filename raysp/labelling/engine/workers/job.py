"""The job of a run: the values that every worker receives, and the pieces that the driver sends to readers."""

import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Self

import pyarrow as pa

from raysp import tracebacks
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ShardError
from raysp.labelling.engine.workers.attempts import Attempts
from raysp.labelling.planning.run_plan import Settings
from raysp.sink.receipts import ShardFailure
from raysp.sink.todo import Retry, Todo
from raysp.sink.word_errors import TextColumns
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, load_function


@dataclass(frozen=True)
class Job:
    """Data that workers need, the same for every task of a run."""

    pipeline: Pipeline
    settings: Settings
    """Resolved settings of the plan; the path of the checkpoint is that of the driver."""
    fingerprint: str
    stage_id: str
    """Staging id of the plan."""
    output_schema: pa.Schema
    metadata: Mapping[str, str]
    file_id: str
    fault_injection: Mapping[str, str]
    """Settings of `sink.fault_injection`, for tests."""
    code: UserCode
    """Code from outside raysp that workers import."""
    functions: Mapping[str, Callable[..., object]]
    """Functions of the main program, by their names in the pipeline; pickled by value."""
    attempts: Attempts
    """Client of the ledger, to which workers report starts and ends of work."""
    hang_seconds: float
    """Time after which a single operation of a worker counts as hung; 0: no limit."""
    carried: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Types of the columns that label shards carry over."""
    texts: TextColumns | None = None
    """Columns whose word errors are counted; None: there are none."""

    def __reduce__(self) -> tuple[Callable[..., "Job"], tuple[UserCode, bytes, dict[str, object]]]:
        """Pickle so that a worker installs the user's code before it unpickles values that use it."""
        import cloudpickle

        values = {one.name: getattr(self, one.name) for one in fields(self)}
        made_of_code = {name: values.pop(name) for name in ("pipeline", "functions")}
        return _arrived, (self.code, cloudpickle.dumps(made_of_code), values)


def sleep_while_waiting() -> None:
    """Make waiting threads of models sleep; called before torch is imported.

    Spinning takes the core that decoding and the driver need, and doubles the CPU time of two threads if other programs
    run (docs/evidence/performance.md).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _arrived(code: UserCode, made_of_code: bytes, values: dict[str, object]) -> Job:
    """Restore the job on a worker, before torch is imported there."""
    sleep_while_waiting()
    tracebacks.refuse_debuggers()
    code.install()
    return Job(**pickle.loads(made_of_code), **values)  # type: ignore[arg-type]


def load_functions(pipeline: Pipeline) -> dict[str, Callable[..., object]]:
    """Return the functions of a pipeline that the main program defines, which workers cannot import."""
    mine = [name for step in pipeline.steps for name in step.functions if name.startswith("__main__:")]
    return {name: load_function(name) for name in mine}


@dataclass(frozen=True)
class PieceTodo:
    """A piece to label, or its retried rows."""

    shard: Shard
    piece: Piece
    retry: Retry | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the piece are to be labelled."""
        return self.retry is None or self.retry.rows is None

    @property
    def rows(self) -> Sequence[int]:
        """Numbers of the rows to label, in the shard."""
        return self.retry.of(self.piece) if self.retry else range(self.piece.first, self.piece.end)

    @property
    def stage_id(self) -> str | None:
        """Staging id of the retry, used in place of the job's; None if this is not a retry."""
        return self.retry.stage_id if self.retry else None

    def __str__(self) -> str:
        """Return the name of the shard, and the rows of the piece."""
        return f"{self.shard.name} {self.piece.first}-{self.piece.end}"

    def to_json(self) -> str:
        """Serialise the piece with the part of its shard that it needs.

        Raises:
            ShardError: the shard has no such part.
        """
        part: dict[str, object] = {}
        if self.retry:
            rows = None if self.is_whole else [*self.rows]
            part = {"retry": {"stage_id": self.retry.stage_id, "rows": rows}}
        pieces = [[self.piece.first, self.piece.end]]
        return json.dumps({**asdict(sources.narrow(self.shard, self.piece)), "pieces": pieces, **part})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the JSON of `to_json`."""
        fields = json.loads(text)
        piece, part = Piece(*fields.pop("pieces")[0]), fields.pop("retry", None)
        retry = Retry(part["stage_id"], part["rows"] and tuple(part["rows"])) if part else None
        return cls(Shard(**fields, pieces=(piece,)), piece, retry)


def serialised(todos: Iterable[Todo]) -> Iterator[tuple[PieceTodo, str] | ShardFailure]:
    """Yield each piece with its JSON, or the failure of its shard if it cannot be serialised."""
    for todo in todos:
        for piece in todo.pieces:
            one = PieceTodo(todo.shard, piece, todo.retry)
            try:
                yield one, one.to_json()
            except ShardError as error:
                yield ShardFailure(todo.shard.name, str(error))
