"""Estimate of a run: what its rows are like, what it needs, how long it takes and what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysp.errors import SpecError
from raysp.labelling.planning.costs import Amount, Cost, Speed, check_speed
from raysp.labelling.planning.opening import plan as make_plan
from raysp.labelling.planning.run_plan import Plan
from raysp.models.base.devices import is_accelerator
from raysp.ops.remedies import FILTERED, remedy
from raysp.ops.speech.places import WHOLE_SECONDS
from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.verbs.estimate.actor_memory import Memory, predict
from raysp.verbs.estimate.actor_speed import of_receipts
from raysp.verbs.estimate.durations import Bar, histogram, seconds_to_label
from raysp.verbs.estimate.row_sampling import SAMPLE_ROWS, Sample, durations_of, read_sample
from raysp.verbs.estimate.simulation import Simulation, simulate
from raysp.words import brief, brief_html, count

ENOUGH_ROWS = 200
"""Rows after which a run stops for its share of errors."""


@dataclass(frozen=True, repr=False)
class Estimate:
    """Estimate of a run from a sample of its rows."""

    rows: int
    """Rows to label."""
    rows_sampled: int
    places: int
    """Places at which they were read."""
    sampled_bytes: int
    unread: tuple[str, ...]
    """Reasons why places could not be read."""
    audio_seconds: Amount | None
    """Seconds of audio to label; None: no row was sampled."""
    channel_seconds: Amount | None
    """Seconds of audio that the model labels: those of all channels where each is labelled, else `audio_seconds`."""
    mean_seconds: float | None
    """Mean duration of the rows that would be labelled."""
    longest_seconds: float | None
    histogram: tuple[Bar, ...]
    windowed: float
    """Share of rows that are cut into several windows."""
    labelled_whole: float | None
    """Share of rows that are too short to be cut at pauses; None: `windows` is not "speech"."""
    not_labelled: Mapping[str, float]
    """Share of rows by error type or reason of skipping, as far as headers and columns show it."""
    error_share: float
    simulation: Simulation | None
    """None: no sampled row would be labelled."""
    memory: Memory | None
    speed: Speed | None
    """None: unknown."""
    cost: Cost | None
    """None: the speed is unknown."""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return a text that fits on a screen."""
        return brief(self)

    def _repr_html_(self) -> str:
        """Return the fields as a table for notebooks."""
        return brief_html(self)


def estimate(
    work: Plan | Pipeline,
    *,
    sample: int = SAMPLE_ROWS,
    seed: int = 0,
    rtfx: float | None = None,
    like: str | None = None,
    like_options: GivenOptions | None = None,
    calibrate: bool = False,
    price: float | None = None,
) -> Estimate:
    """Estimate a run from a sample of the rows that it labels; nothing is written, and Ray is not started.

    At most 32 places are read, about 2 MB of encoded audio each. The speed is that of `rtfx`, of `like`, or measured
    here; else that of earlier runs over the sink of the plan; else unknown.

    Args:
        work: the plan, or the pipeline to plan.
        sample: rows to sample, at least 1.
        seed: determines the rows.
        rtfx: seconds of audio that one actor labels per second; of all channels where each is labelled.
        like: url of a sink with the same checkpoint, whose receipts give the speed.
        like_options: storage options of that sink.
        calibrate: label some sampled rows in this process, and measure the speed.
        price: price of an hour of one GPU, or of one CPU if the model runs on CPUs, in any currency.

    Raises:
        SpecError: an argument is invalid for any data.
        PlanError: the pipeline cannot be planned, or `like` is not alike; the device to calibrate on is not here.
    """
    check_arguments(sample=sample, rtfx=rtfx, like=like, calibrate=calibrate, price=price)
    plan = make_plan(work) if isinstance(work, Pipeline) else work
    rows = read_sample(plan, sample, seed=seed)
    simulation = simulate(plan, rows, seed=seed)
    speed = _speed(plan, rows, rtfx, like, like_options, calibrate)
    audio = seconds_to_label(rows, _declared(plan)) if rows.num_rows else None
    channels = audio.times(rows.channels_per_second) if audio else None
    longest = plan.pipeline.label.window_seconds
    seconds = rows.seconds[rows.is_ok]
    share_ok = float(rows.weights[rows.is_ok].sum()) if rows.num_rows else 0.0
    return Estimate(
        rows=rows.rows_todo,
        rows_sampled=rows.num_rows,
        places=len(rows.parts),
        sampled_bytes=rows.num_bytes,
        unread=rows.unread,
        audio_seconds=audio,
        channel_seconds=channels,
        mean_seconds=float(rows.weights @ rows.seconds) / share_ok if share_ok else None,
        longest_seconds=float(seconds.max()) if seconds.size else None,
        histogram=histogram(durations_of(rows)),
        windowed=float(rows.weights[rows.seconds > longest].sum()) if rows.num_rows else 0.0,
        labelled_whole=_labelled_whole(plan, rows),
        not_labelled=rows.outcomes,
        error_share=rows.error_share,
        simulation=simulation,
        memory=predict(plan, rows, simulation) if simulation else None,
        speed=speed,
        cost=_cost(plan, channels, speed, price) if channels and speed else None,
        notes=tuple(_notes(plan, rows)),
    )


def check_arguments(
    *,
    sample: int = SAMPLE_ROWS,
    rtfx: float | None = None,
    like: str | None = None,
    calibrate: bool = False,
    price: float | None = None,
) -> None:
    """Raise SpecError if arguments of `estimate` are invalid for any data."""
    if sample < 1:
        raise SpecError(f"sample: found {sample}, expected at least 1 row")
    check_speed(rtfx=rtfx, like=like, calibrate=calibrate, price=price)


def _labelled_whole(plan: Plan, rows: Sample) -> float | None:
    if plan.pipeline.label.windows != "speech" or not rows.num_rows:
        return None
    most = min(WHOLE_SECONDS, plan.pipeline.label.window_seconds)
    return float(rows.weights[rows.is_ok & (rows.seconds <= most)].sum())


def _declared(plan: Plan) -> float | None:
    """Return the seconds that the source declares for the rows to label; None if it does not, or they are a part."""
    seconds = [one.shard.seconds for one in plan.todo]
    is_whole = plan.rows_todo == sum(one.shard.num_rows for one in plan.todo)
    known = [one for one in seconds if one is not None]
    return sum(known) if is_whole and len(known) == len(seconds) else None


def _speed(
    plan: Plan, rows: Sample, rtfx: float | None, like: str | None, options: GivenOptions | None, calibrate: bool
) -> Speed | None:
    if rtfx is not None:
        return Speed(rtfx, "as stated")
    if calibrate:
        from raysp.verbs.estimate.actor_calibration import calibrate as measure

        return measure(plan, rows)
    return of_receipts(plan, like, options, channels_per_second=rows.channels_per_second)


def _cost(plan: Plan, audio: Amount, speed: Speed, price: float | None) -> Cost:
    settings, on_gpu = plan.settings, is_accelerator(plan.settings.device)
    return Cost.of(
        audio,
        speed,
        actors=plan.pool_size.high,
        devices=settings.gpus_per_actor if on_gpu else settings.cpus_per_actor.number,
        device="GPU" if on_gpu else "CPU",
        price=price,
    )


def _notes(plan: Plan, sample: Sample) -> list[str]:
    """Return sentences on what the run would do that a user may not expect."""
    notes = []
    late = [type(step).__name__ for stage in plan.pipeline.stages for step in stage.steps]
    if late:
        notes.append(f"the steps {', '.join(late)} read decoded rows and were not applied to the sample")
    most = plan.pipeline.max_error_rate
    kind = next((one for one in sample.outcomes if one != FILTERED), None)
    if kind is not None and not sample.is_ok.any():
        notes.append(f"none of {count(sample.num_rows, 'sampled row')} can be labelled. For {kind}: {remedy(kind)}")
    elif plan.rows_todo >= ENOUGH_ROWS and sample.num_rows and sample.error_share > most:
        notes.append(
            f"{sample.error_share:.0%} of the sampled rows are error rows: a run would stop, as max_error_rate={most:g}"
        )
    return notes
