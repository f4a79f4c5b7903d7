"""Pipelines and their sinks, as `raysp.work.Kind`."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from raysp.labelling.planning.opening import plan as make_plan
from raysp.labelling.planning.trust import open_recorded
from raysp.sink.orphans import find_orphans as leftovers
from raysp.specs.pipeline import Pipeline
from raysp.storage.store import Store
from raysp.work import EstimateOptions, PlanPart, SinkRequest

__all__ = ["estimate", "leftovers", "opened", "page", "plan_parts", "progress"]

if TYPE_CHECKING:
    from raysp.labelling.estimates.run_estimate import Estimate
    from raysp.labelling.finished.label_status import Status
    from raysp.labelling.planning.run_plan import Plan

PARTIAL = 3
"""Exit code of a plan of which no shard can be read."""


def estimate(work: "Pipeline | Plan", options: EstimateOptions) -> "Estimate":
    """Return the estimate of a run."""
    from raysp.labelling.estimates.run_estimate import estimate as estimate_run

    return estimate_run(work, options)


def plan_parts(work: Pipeline, options: EstimateOptions, on_indexed: Callable[[int, int], None]) -> Iterator[PlanPart]:
    """Yield the plan of a run, and its estimate unless no rows are left or sampled."""
    plan = make_plan(work)
    unread, facts = plan.corpus.unreadable, [*plan.facts.items()]
    if not plan.todo:
        readable = " that can be read" if unread else ""
        is_any = plan.corpus.shards or not unread
        facts.append(("nothing to do", f"all shards{readable} are committed" if is_any else "no shard can be read"))
    yield PlanPart(
        facts,
        plan.messages,
        unread,
        {**plan.json, "estimate": None},
        PARTIAL if unread and not plan.corpus.shards else 0,
    )
    if options.sample == 0:
        return
    if not plan.rows_todo or not plan.pipeline.reads_audio:
        unused = {"--sample": options.sample, **options.speed_options}
        if names := [name for name, value in unused.items() if value]:
            reason = "no row is left to label" if plan.pipeline.reads_audio else "no audio is read"
            why = f"without effect: {reason}, so there is nothing to estimate"
            yield PlanPart(messages=[f"{' and '.join(names)}: {why}"])
        return
    estimated = estimate(plan, options)
    yield PlanPart(estimated.facts, estimated.messages, json={"estimate": dataclasses.asdict(estimated)})


def opened(request: SinkRequest) -> Store:
    """Return the store of a sink of label shards."""
    return open_recorded(request)[0].store


def progress(request: SinkRequest) -> "Status":
    """Return the progress of a sink of label shards."""
    from raysp.labelling.finished.label_status import label_status

    return label_status(request)


def page(request: SinkRequest, by: Sequence[str] | None) -> tuple[Store, str]:
    """Return the store of a sink of label shards, and its report as HTML."""
    from raysp.labelling.reports.label_report import render

    return render(request, by)
