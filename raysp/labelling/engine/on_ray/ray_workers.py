"""Labelling and commits of a run on Ray."""

from collections.abc import Generator, Iterator, Mapping, Sequence

from raysp.labelling.engine.execution import OnPiece
from raysp.labelling.engine.on_ray.bisection import bisect_pieces
from raysp.labelling.engine.on_ray.commits import Commits
from raysp.labelling.engine.on_ray.counted_attempts import CountedAttempts
from raysp.labelling.engine.on_ray.stream import label
from raysp.labelling.engine.run_events import RunEvents
from raysp.labelling.engine.workers.job import Job, PieceTodo
from raysp.labelling.engine.workers.messages import Message
from raysp.labelling.planning.run_plan import Plan
from raysp.sink.todo import Retry


class OnRay:
    """Workers on Ray: actors of one Ray Data plan label, tasks commit.

    Args:
        events: event log of the run.
    """

    def __init__(self, events: RunEvents) -> None:
        self.events = events
        self.attempts = CountedAttempts()
        """Counts of crashes, which workers and driver share."""

    def label(self, plan: Plan, job: Job, on_piece: OnPiece) -> Generator[Message]:
        """Label the pieces of a plan, and yield a message per block; `on_piece` is called with each piece taken."""
        return label(plan, job, on_piece, self.events)

    def bisect(self, plan: Plan, job: Job, pieces: Sequence[PieceTodo]) -> Iterator[Message]:
        """Label pieces that crash workers, each half in a separate task, and yield messages."""
        return bisect_pieces(plan, job, pieces)

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> Commits:
        """Return an empty set of commit tasks."""
        return Commits(job, retries, actor_memory=job.pipeline.label.pool.memory or 0)
