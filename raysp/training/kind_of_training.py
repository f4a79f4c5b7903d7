"""Recipes and the sinks of trainings, as `raysp.work.Kind`."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from raysp.errors import SpecError, refuse_unused
from raysp.sink.sinks import Sink
from raysp.storage.store import Store
from raysp.storage.stores import open_store
from raysp.training.reading.training_status import TrainingStatus, read_training
from raysp.training.sink.committed_steps import leftovers
from raysp.training.sink.training_record import INDEX, TrainingRecord
from raysp.training.specs.recipe import Finetune
from raysp.work import EstimateOptions, PlanPart, SinkRequest

if TYPE_CHECKING:
    from raysp.training.estimates.training_estimate import TrainingEstimate
    from raysp.training.planning.training_plan import TrainingPlan
    from raysp.training.preparing import Prepared

PLANNED_ROWS = 20_000
"""Rows up to which a plan reads their headers, unless the sink has an index."""

__all__ = ["estimate", "leftovers", "opened", "page", "plan_parts", "progress"]


def estimate(work: Finetune, options: EstimateOptions) -> "TrainingEstimate":
    """Return the estimate of a training."""
    sampling = {"sample": options.sample, "seed": options.seed}
    refuse_unused(sampling, "the rows of a recipe are not sampled; leave it out")
    return _estimated(work, options, lambda done, of: None)[2]


def plan_parts(work: Finetune, options: EstimateOptions, on_indexed: Callable[[int, int], None]) -> Iterator[PlanPart]:
    """Yield the plan of a training with its estimate."""
    plan, prepared, estimated = _estimated(work, options, on_indexed)
    shown = plan if prepared is None else prepared
    yield PlanPart(
        [*shown.facts.items(), *estimated.facts],
        estimated.messages,
        {} if prepared is None else prepared.unreadable,
        {**_plan_json(plan, prepared), "estimate": dataclasses.asdict(estimated)},
    )


def _estimated(
    recipe: Finetune, options: EstimateOptions, on_indexed: Callable[[int, int], None]
) -> "tuple[TrainingPlan, Prepared | None, TrainingEstimate]":
    """Return the plan of a training, its rows unless they are many and not indexed yet, and its estimate.

    Nothing is written.

    Raises:
        SpecError, PlanError, CheckpointError, StoreError: as `finetune`, and as `estimate`.
    """
    from raysp.audio.isolation import Decoder
    from raysp.training.estimates.training_estimate import estimate_training
    from raysp.training.planning.training_plan import plan_training
    from raysp.training.preparing import prepare

    plan, prepared = plan_training(recipe), None
    store = open_store(plan.recipe.sink.url, plan.recipe.sink.storage_options)
    TrainingRecord.load(store)  # refuses a sink of labels
    with Decoder() as decoder:
        if plan.corpora["source"].num_rows <= PLANNED_ROWS or any(True for _ in store.list(INDEX)):
            prepared = prepare(plan, store, saves=False, decoder=decoder, on_indexed=on_indexed)
        return plan, prepared, estimate_training(plan, prepared, store, options, decoder)


def _plan_json(plan: "TrainingPlan", prepared: "Prepared | None") -> dict[str, object]:
    corpus = plan.corpora["source"]
    content: dict[str, object] = {
        "sink": plan.recipe.sink.url,
        "shards": len(corpus.shards),
        "rows": corpus.num_rows,
        "workers": plan.workers.low,
        "dtype": plan.dtype,
        "device": plan.workers.device,
        "sizes": dataclasses.asdict(plan.sizes),
    }
    if prepared is not None:
        content |= {
            "fingerprint": prepared.fingerprint,
            "rows_trained": prepared.corpus.durations.num_rows,
            "audio_seconds": float(prepared.corpus.durations.seconds.sum()),
            "left_out": dict(prepared.corpus.left_out),
            **prepared.task.outputs,
            "steps_per_epoch": prepared.order.first_epoch.num_steps,
            "shards_unreadable": dict(prepared.unreadable),
            "parts": dict(prepared.parts),
        }
    return content


def opened(request: SinkRequest) -> Store:
    """Return the store of a training, opened with the options of the request, or environment and profile."""
    return Sink.open(request.place, request.storage_options).store


def progress(request: SinkRequest) -> TrainingStatus:
    """Return the progress of a training."""
    return read_training(opened(request))[2]


def page(request: SinkRequest, by: Sequence[str] | None) -> tuple[Store, str]:
    """Return the store of a training, and its report as HTML.

    Raises:
        SpecError: `by` or `normalise`, since a training has no label rows.
    """
    from raysp.training.reading.training_report import render

    for name, value in (("by", [*by] if by else None), ("normalise", request.normalise)):
        if value is not None:
            raise SpecError(f"{name}={value!r}: applies to a sink of labels, found a sink of a training; leave it out")
    store = opened(request)
    return store, render(store)
