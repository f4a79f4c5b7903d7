"""`raysp.estimate`: what a run or a training needs, how long it takes and what it costs, before it starts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, overload

from raysp.errors import refuse_unused
from raysp.labelling.planning.costs import check_speed
from raysp.storage.options import GivenOptions
from raysp.training.specs.recipe import Finetune

if TYPE_CHECKING:
    from raysp.labelling.planning.run_plan import Plan
    from raysp.specs.pipeline import Pipeline
    from raysp.training.estimates.training_estimate import Given, TrainingEstimate
    from raysp.training.planning.training_plan import TrainingPlan
    from raysp.training.preparing import Prepared
    from raysp.verbs.estimate.run_estimate import Estimate


@overload
def estimate(
    work: "Plan | Pipeline",
    *,
    sample: int | None = None,
    seed: int | None = None,
    rtfx: float | None = None,
    like: str | None = None,
    like_options: GivenOptions | None = None,
    calibrate: bool = False,
    price: float | None = None,
) -> "Estimate": ...


@overload
def estimate(
    work: Finetune,
    *,
    rtfx: float | None = None,
    like: str | None = None,
    like_options: GivenOptions | None = None,
    calibrate: bool = False,
    price: float | None = None,
) -> "TrainingEstimate": ...


def estimate(
    work: "Plan | Pipeline | Finetune",
    *,
    sample: int | None = None,
    seed: int | None = None,
    rtfx: float | None = None,
    like: str | None = None,
    like_options: GivenOptions | None = None,
    calibrate: bool = False,
    price: float | None = None,
) -> "Estimate | TrainingEstimate":
    """Estimate a run from a sample of the rows that it labels, or a training; nothing is written, Ray is not started.

    At most 32 places of the rows to label are read, about 2 MB of encoded audio each. The headers of all rows of a
    training are read, unless they are many and not indexed yet. The speed is that of `rtfx`, of `like`, or measured
    here; else that of earlier runs over the sink; else unknown.

    Args:
        work: the plan, the pipeline to plan, or the recipe.
        sample: rows to sample, at least 1; None: 256. Of a pipeline only, as is `seed`.
        seed: determines the rows of the sample; None: 0.
        rtfx: seconds of audio that one actor labels per second, of all channels where each is labelled; or on which
            one worker trains.
        like: url of a sink with the same checkpoint, whose runs give the speed.
        like_options: storage options of that sink.
        calibrate: label some sampled rows in this process, or train on a few micro-batches, and measure the speed.
        price: price of an hour of one GPU, or of one CPU if the model runs on CPUs, in any currency.

    Raises:
        SpecError: an argument is invalid for any data.
        PlanError: the work cannot be planned, or `like` is not alike; the device to calibrate on is not here.
    """
    if like is None:
        refuse_unused({"like_options": like_options}, "they reach the sink of like=, and there is none; leave them out")
    if isinstance(work, Finetune):
        refuse_unused({"sample": sample, "seed": seed}, "the rows of a recipe are not sampled; leave it out")
        check_speed(rtfx=rtfx, like=like, calibrate=calibrate, price=price)
        from raysp.training.estimates.training_estimate import Given

        return estimate_recipe(work, Given(rtfx, like, calibrate, like_options, price))[2]
    from raysp.verbs.estimate.row_sampling import SAMPLE_ROWS
    from raysp.verbs.estimate.run_estimate import estimate as estimate_run

    return estimate_run(
        work,
        sample=SAMPLE_ROWS if sample is None else sample,
        seed=seed or 0,
        rtfx=rtfx,
        like=like,
        like_options=like_options,
        calibrate=calibrate,
        price=price,
    )


def estimate_recipe(
    recipe: Finetune, given: "Given", *, on_indexed: Callable[[int, int], None] = lambda done, of: None
) -> "tuple[TrainingPlan, Prepared | None, TrainingEstimate]":
    """Return the plan of a training, its rows unless they are many and not indexed yet, and its estimate.

    Args:
        recipe: the recipe.
        given: speed and price.
        on_indexed: called with the number of shards that are indexed, and with that of all.

    Raises:
        SpecError, PlanError, CheckpointError, StoreError: as `finetune`, and as `estimate`.
    """
    from raysp.labelling.engine.workers.reader import close_decoder, process_decoder
    from raysp.training.estimates.training_estimate import estimate_training
    from raysp.training.finetuning import plan_with_sink

    try:
        plan, prepared, store = plan_with_sink(recipe, on_indexed)
        return plan, prepared, estimate_training(plan, prepared, store, given, process_decoder())
    finally:
        close_decoder()
