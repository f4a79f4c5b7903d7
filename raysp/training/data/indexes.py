"""Indexes of the shards of a corpus, made one after the other, or by processes where there are many rows.

Each process reads shards with a decoder of its own. The results do not depend on them, and are in the order of the
shards. Shards of a process that ended early are indexed by this one.
"""

import base64
import pickle
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysp.corpus.shards import Shard
from raysp.corpus.surveys import LineProcess
from raysp.errors import ProgramError, RayspError
from raysp.models.labelled_passes import CheckpointSummary
from raysp.specs.code import UserCode
from raysp.text.targets import Targets
from raysp.training.data.indexing import index_shard
from raysp.training.sink.source_index import Indexed
from raysp.training.specs.recipe import Finetune

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

MAIN = "raysp.training.data.index_process"
MOST_PROCESSES = 16
"""With 200 requests a second each, they stay below what an object store serves for one prefix."""
WORTH_ROWS = 100_000
"""Rows from which several processes are faster than one, which reads some 4,000 headers a second of a core; each takes
seconds of a core to import torch."""
SHARDS_AHEAD = 2
"""Shards queued for each process, so that it never waits for the next."""
FAILED = b"\n"
"""Answer for a shard with an unexpected error; this process indexes it again, and raises the error."""


@dataclass(frozen=True)
class Indexer:
    """Everything besides the shard that affects its index.

    Attributes:
        recipe: the recipe.
        checkpoint: description of the checkpoint to begin with.
        targets: makes the targets of the rows of a shard.
        min_samples: samples of the shortest row.
        code: code from outside raysp.
    """

    recipe: Finetune
    checkpoint: CheckpointSummary
    targets: Callable[[], Targets]
    min_samples: int
    code: UserCode

    def __call__(self, shard: Shard, decoder: "Decoder | None" = None) -> Indexed:
        """Return the index of a shard; `decoder` has the decoding functions, None: of this process."""
        try:
            return index_shard(self.recipe, self.checkpoint, shard, self.targets(), self.min_samples, decoder=decoder)
        except ProgramError:
            raise
        except RayspError as error:
            return str(error)

    @property
    def can_leave(self) -> bool:
        """Whether another process can import all code of the recipe: none of it is in the main program."""
        steps = self.recipe.steps
        modules = [name.partition(":")[0] for step in steps for name in step.functions]
        return "__main__" not in {*modules, *(type(step).__module__ for step in steps)}

    def to_bytes(self) -> bytes:
        """Return the bytes that `read` takes."""
        return pickle.dumps(self.code) + pickle.dumps(self)


def index_all(
    shards: Sequence[Shard], indexer: Indexer, *, processes: int, decoder: "Decoder | None" = None
) -> Generator[Indexed]:
    """Yield the index of each shard, or why it cannot be read, in order.

    Args:
        shards: the shards.
        indexer: makes the index of a shard.
        processes: processes that may be used. They start if there are enough rows.
        decoder: decoding functions; None: of this process.
    """
    number = min(processes, MOST_PROCESSES, len(shards))
    if number > 1 and indexer.can_leave and sum(shard.num_rows for shard in shards) >= WORTH_ROWS:
        yield from _by_processes(shards, indexer, number, decoder)
    else:
        yield from (indexer(shard, decoder) for shard in shards)


def _by_processes(
    shards: Sequence[Shard], indexer: Indexer, number: int, decoder: "Decoder | None"
) -> Generator[Indexed]:
    begun: deque[tuple[LineProcess, Shard]] = deque()
    values = indexer.to_bytes()

    def answered() -> Indexed:
        process, shard = begun.popleft()
        line = process.receive()
        return indexer(shard, decoder) if line is None or line == FAILED else from_line(line)

    with ExitStack() as stack:
        processes = [stack.enter_context(LineProcess(MAIN, values, "indexes rows")) for _ in range(number)]
        for place, shard in enumerate(shards):
            processes[place % number].send(to_line(shard))
            begun.append((processes[place % number], shard))
            if len(begun) >= SHARDS_AHEAD * number:
                yield answered()
        while begun:
            yield answered()


def to_line(value: Shard | Indexed) -> bytes:
    """Return the line of a request or an answer: its pickle in Base64."""
    return base64.b64encode(pickle.dumps(value)) + b"\n"


def from_line(line: bytes) -> Indexed:
    """Return the answer in a line of `to_line`."""
    indexed: Indexed = pickle.loads(base64.b64decode(line))
    return indexed
