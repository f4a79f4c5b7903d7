"""Labelling and commits of a run on Ray."""

from collections.abc import Generator, Iterator, Mapping, Sequence

from raysp.engine.commits import Commits
from raysp.engine.packing import Told
from raysp.engine.poisoned import Poisoned
from raysp.engine.salvage import salvage
from raysp.engine.stream import receipts
from raysp.engine.tasks import Job
from raysp.planning.plans import Plan
from raysp.sink.todo import Retry


class OnRay:
    """Workers on Ray: actors of one Ray Data plan label, tasks commit."""

    def receipts(self, plan: Plan, job: Job) -> Generator[Told]:
        """Label the pieces of a plan, and yield a receipt per block."""
        return receipts(plan, job)

    def salvage(self, plan: Plan, job: Job, pieces: Sequence[Poisoned]) -> Iterator[Told]:
        """Label pieces that crash workers, each half in a separate task, and yield receipts."""
        return salvage(plan, job, pieces)

    def commits(self, job: Job, retries: Mapping[str, Retry]) -> Commits:
        """Return an empty set of commit tasks."""
        return Commits(job, retries, actor_memory=job.pipeline.label.pool.memory or 0)
