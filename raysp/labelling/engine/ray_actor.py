"""Actors that hold the model on Ray, and the tasks that read for them."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pyarrow as pa
import ray

from raysp import tracebacks
from raysp.corpus.shards import Piece
from raysp.devices import DeviceLostError
from raysp.errors import ProgramError
from raysp.labelling.engine.job import (
    FatalFailure,
    Job,
    LabelledPiece,
    LostReader,
    Message,
    PieceTodo,
    ReadingError,
    shard_failure,
)
from raysp.labelling.engine.model import Model
from raysp.labelling.engine.piece import label_piece
from raysp.labelling.engine.piece_reading import read_blocks
from raysp.sink import fault_injection
from raysp.sink.receipts import ShardFailure

if TYPE_CHECKING:
    from ray import ObjectRef

PIECES_AT_ONCE = 2
"""Pieces that an actor has at once, so that its model does not wait where one ends."""
BLOCKS_AHEAD = 2
"""Blocks of a piece that are decoded before the model takes them."""
READER_CPUS = 1.0

logger = logging.getLogger(__name__)

Tracebacks = dict[str, str]
"""Tracebacks of errors, which travel with the next message."""


class Place(NamedTuple):
    """Where an actor is."""

    node: str
    actor: str


class SoFar(NamedTuple):
    """The pieces that an actor labels now."""

    pieces: Sequence[LabelledPiece]
    reading: int
    """Number of pieces whose readers have begun."""


class ModelActor:
    """Actor that holds the model of a `Label` step. `label` and `so_far` run in several threads at once.

    Args:
        job: reference to the job, in a list, so that Ray passes the reference on.
    """

    def __init__(self, job: "list[ObjectRef[Job]]") -> None:
        self._job_ref = job[0]
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._so_far: dict[PieceTodo, LabelledPiece] = {}
        self._reading: set[tuple[str, Piece]] = set()

    def place(self) -> Place:
        """Return where this actor is."""
        context = ray.get_runtime_context()
        return Place(str(context.get_node_id()), str(context.get_actor_id()))

    def load(self) -> str | None:
        """Load the model; return the reason if that fails."""
        try:
            self._job = job = ray.get(self._job_ref)
            fault_injection.adopt(job.fault_injection)
            self._models = Model.of(job)
        except Exception as error:
            return f"node {socket.gethostname()}: {tracebacks.described(error)}"
        return None

    def so_far(self) -> SoFar:
        """Return counts of the pieces that are labelled now."""
        return SoFar([*self._so_far.values()], len(self._reading))

    def label(self, todo: PieceTodo) -> tuple[Message | LostReader, Tracebacks]:
        """Label and stage a piece; the process ends if its device fails."""
        message: Message | LostReader
        try:
            for message in label_piece(self._job, self._models, todo, self._blocks, self._job.store, self._name):
                if isinstance(message, LabelledPiece) and not message.is_staged:
                    self._so_far[todo] = message
        except ReadingError as error:
            message = error.outcome
        except DeviceLostError:
            logger.exception("%s: the device failed", todo)
            os._exit(1)  # the driver starts another actor, which labels the piece again
        finally:
            self._so_far.pop(todo, None)
            self._reading.discard((todo.name, todo.part))
        return message, tracebacks.take()

    def _blocks(self, todo: PieceTodo) -> Iterator[pa.Table]:
        """Yield the blocks that a task on any node decodes."""
        read = ray.remote(cast("Any", read_piece)).options(
            num_cpus=READER_CPUS,
            max_retries=0,  # the driver judges crashes
            num_returns="streaming",
            _generator_backpressure_num_objects=BLOCKS_AHEAD,
        )
        stream = read.remote(self._job_ref, todo)
        node, is_read = "", False
        try:
            for ref in stream:
                content, noted = ray.get(ref)
                tracebacks.keep(noted)
                if isinstance(content, str):
                    node = content
                    self._reading.add((todo.name, todo.part))
                elif isinstance(content, pa.Table):
                    yield content
                else:
                    raise ReadingError(content)
            is_read = True
        except ray.exceptions.RayTaskError as error:
            raise ReadingError(FatalFailure(tracebacks.described(error.cause or error))) from error
        except ray.exceptions.RayError as error:
            raise ReadingError(LostReader(node, isinstance(error, ray.exceptions.OutOfMemoryError))) from error
        finally:
            if not is_read:
                ray.cancel(stream, force=True)


def read_piece(job: Job, todo: PieceTodo) -> Iterator[tuple[str | pa.Table | ShardFailure | FatalFailure, Tracebacks]]:
    """Yield the node on which this runs, then the decoded blocks of a piece, or why it cannot be read."""
    yield str(ray.get_runtime_context().get_node_id()), {}
    try:
        for block in read_blocks(job, todo):
            yield block, {}
    except ProgramError as error:
        yield FatalFailure(str(error)), tracebacks.take()
    except Exception as error:
        yield shard_failure(todo.name, error), tracebacks.take()
