"""`raysp.estimate`: hours, time and cost of a run or a training, before it starts."""

from raysp.errors import refuse_unused
from raysp.storage.options import GivenOptions
from raysp.work import Estimated, EstimateOptions, Named, kind_of_work


def estimate(
    work: Named,
    *,
    sample: int | None = None,
    seed: int | None = None,
    rtfx: float | None = None,
    like: str | None = None,
    like_options: GivenOptions | None = None,
    calibrate: bool = False,
    price: float | None = None,
) -> Estimated:
    """Estimate a run from a sample of the rows that it labels, or a training; nothing is written, Ray is not started.

    At most 32 places of the rows to label are read, about 2 MB of encoded audio each. The headers of all rows of a
    training are read, unless they are many and not indexed yet. The speed is `rtfx`, or from `like`, or measured
    here; else from earlier runs over the sink; else unknown.

    Args:
        work: the plan, the pipeline to plan, or the recipe.
        sample: rows to sample, at least 1; None: 256. Of a pipeline only, as is `seed`.
        seed: determines the rows of the sample; None: 0.
        rtfx: seconds of audio that one actor labels per second, of all channels where each is labelled; or on which
            one worker trains.
        like: url of a sink with the same checkpoint, whose runs give the speed.
        like_options: storage options of that sink.
        calibrate: label some sampled rows here, or train on a few micro-batches, and measure speed and memory.
        price: price of an hour of one GPU, or of one CPU if the model runs on CPUs, in any currency.

    Raises:
        SpecError: an argument is invalid for any data.
        PlanError: the work cannot be planned, or `like` is not alike; the device to calibrate on is not here.
    """
    if like is None:
        refuse_unused({"like_options": like_options}, "they reach the sink of like=, and there is none; leave them out")
    options = EstimateOptions(sample, seed, rtfx, like, like_options, calibrate, price)
    return kind_of_work(work).estimate(work, options)
