"""Labelling and commits in this process, without Ray.

Used for a try-out of a few rows, since starting Ray takes longer than labelling them. The code is that of workers. A
crash ends the try-out, since nothing retries it.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import pyarrow as pa

from raysp.corpus.shards import Shard
from raysp.devices import release_memory
from raysp.errors import RunError
from raysp.labelling.engine.execution import OnPiece, Outcome
from raysp.labelling.engine.workers.committer import commit_shard
from raysp.labelling.engine.workers.job import Job, PieceTodo, serialised
from raysp.labelling.engine.workers.label_actor import LabelActor
from raysp.labelling.engine.workers.messages import Message, read_messages
from raysp.labelling.engine.workers.reader import Reader, close_decoder
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.receipts import ShardFailure
from raysp.sink.todo import Retry
from raysp.storage.store import UnusableError
from raysp.words import RUN_AGAIN


class InProcess:
    """Workers that label and commit sequentially, in this process."""

    def label(self, plan: Plan, job: Job, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of a plan, and yield a message per block; `on_piece` is called with each piece taken."""
        import torch

        threads = torch.get_num_threads()
        reader, actor = Reader(job), LabelActor(job, ends_process=False)
        apply_steps = _steps(job)
        try:
            for one in serialised(plan.todo):
                if isinstance(one, ShardFailure):
                    yield one
                    continue
                todo, item = one
                on_piece(todo)
                for packed in reader(pa.table({"piece": [item]})):
                    yield from read_messages(actor(apply_steps(packed)))
        finally:
            actor.close()
            # Before memory is released, since what the model refers to is kept.
            del actor
            release_memory(job.settings.device)
            close_decoder()
            torch.set_num_threads(threads)

    def bisect(self, plan: Plan, job: Job, pieces: Sequence[PieceTodo]) -> Iterator[Message]:
        """Return an empty iterator: `label` never yields `PoisonedPiece`."""
        return iter(())

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> "InProcessCommits":
        """Return an empty set of commits."""
        return InProcessCommits(job, retries)


class InProcessCommits:
    """Commits that run synchronously in `start`."""

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
            raise RunError(f"{outcome}. {RUN_AGAIN}")
        self._outcomes[shard.name] = outcome

    def begun(self) -> list[str]:
        """Return the names of shards whose outcomes were not returned yet."""
        return list(self._outcomes)

    def finished(self) -> list[Outcome]:
        """Return the outcomes since the last call."""
        found, self._outcomes = list(self._outcomes.values()), {}
        return found

    def rest(self) -> Iterator[list[Outcome]]:
        """Yield the outcomes since the last call."""
        yield self.finished()

    def stop(self, seconds: float) -> list[Outcome]:
        """Return the outcomes since the last call."""
        return self.finished()


def _steps(job: Job) -> Callable[[pa.Table], pa.Table]:
    """Return a function that applies the stages with pools of their own, which most pipelines lack."""
    if len(job.pipeline.stages) < 2:
        return lambda packed: packed
    from raysp.labelling.engine.workers.step_actor import in_turn

    return in_turn(job)
