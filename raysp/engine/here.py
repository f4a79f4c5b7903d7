"""This process as the place where pieces are labelled and shards committed, without Ray.

For a try-out of a few rows: starting Ray takes longer than labelling them. The code is that of workers. What kills a
worker kills the try-out, for nothing is there to repeat it.
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import cast

import pyarrow as pa

from raysp.corpus.shards import Shard
from raysp.engine.attempts import Attempts
from raysp.engine.execution import Outcome
from raysp.engine.packing import Told, failure
from raysp.engine.poisoned import Poisoned
from raysp.engine.tasks import Job, LabelActor, Reader, close_decoder, commit_shard, piece_item
from raysp.errors import RunError, ShardError
from raysp.planning.plans import Plan
from raysp.sink.todo import Retry
from raysp.storage.store import UnusableError

MOST_ROWS = 20
"""Rows of a try-out that are labelled here; reading ahead, more actors and other machines are of no use to so few."""


class Here:
    """Label and commit one after the other, in this process."""

    def receipts(self, plan: Plan, job: Job) -> Generator[Told]:
        """Label the pieces of a plan; yields a receipt a block."""
        import torch

        threads = torch.get_num_threads()
        reader, actor = Reader(job), LabelActor(job)
        try:
            for todo in plan.todo:
                for piece in todo.pieces:
                    try:
                        item = piece_item(todo.shard, piece, todo.retry)
                    except ShardError as error:
                        yield failure(todo.shard.name, str(error))
                        continue
                    for packed in reader(pa.table({"piece": [item]})):
                        yield json.loads(cast("str", actor(packed).column("receipt")[0].as_py()))
        finally:
            actor.close()
            close_decoder()
            torch.set_num_threads(threads)

    def salvage(self, plan: Plan, job: Job, pieces: Sequence[Poisoned]) -> Iterator[Told]:
        """Yield nothing: there are no such pieces."""
        return iter(())

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> "CommitsHere":
        """Return an empty set of commits."""
        return CommitsHere(job, retries)


class CommitsHere:
    """Commits, each made when it is started; their outcomes are known when they are asked for."""

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
            raise RunError(f"{outcome}. What was committed stays; run again")
        self._outcomes[shard.name] = outcome

    def begun(self) -> list[str]:
        """Return the names of shards that are committed without anybody having asked for the outcome."""
        return list(self._outcomes)

    def finished(self) -> list[Outcome]:
        """Return the outcomes since the last call."""
        found, self._outcomes = list(self._outcomes.values()), {}
        return found

    def rest(self) -> list[Outcome]:
        """Return the outcomes since the last call."""
        return self.finished()

    def stop(self, seconds: float) -> list[Outcome]:
        """Return the outcomes since the last call."""
        return self.finished()


class Uncounted(Attempts):
    """No ledger: this process ends with what it crashes over, so that nothing is attempted twice."""

    def __init__(self) -> None:
        """Start no actor."""

    def begin(self, work: str) -> int:
        """Return that nothing has died over it."""
        return 0

    def deaths(self, work: str) -> int:
        """Return that nothing has died over it."""
        return 0

    def end(self, work: str) -> None:
        """Note nothing."""

    def reach(self, task: str, part: str, places: int) -> None:
        """Note nothing."""

    def reached(self, task: str, part: str) -> int:
        """Return that nothing is out."""
        return 0

    def close(self) -> None:
        """Do nothing: there is no ledger."""

    @staticmethod
    def actor_id() -> str:
        """Name this process's model."""
        return "here"
