"""Estimate of a run: its rows, resources, time and cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysp.devices import is_accelerator
from raysp.errors import SpecError
from raysp.labelling.estimates.actor_calibration import calibrate
from raysp.labelling.estimates.actor_memory import Memory, predict
from raysp.labelling.estimates.actor_speed import of_measured_passes, of_receipts
from raysp.labelling.estimates.durations import Bar, histogram, seconds_to_label
from raysp.labelling.estimates.row_sampling import SAMPLE_ROWS, Sample, durations_of, read_sample
from raysp.labelling.estimates.simulation import Simulation, simulate
from raysp.labelling.planning.costs import Amount, Cost, Speed, check_speed
from raysp.labelling.planning.opening import plan as make_plan
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.places import WHOLE_SECONDS
from raysp.ops.remedies import FILTERED, remedy
from raysp.specs.pipeline import Pipeline
from raysp.words import Brief, count, megabytes
from raysp.work import Given

ENOUGH_ROWS = 200
"""Rows after which a run stops for its share of errors."""


BAR_WIDTH = 40
"""Characters of the longest bar: with its edges and share, a line has 70."""


@dataclass(frozen=True, repr=False)
class Estimate(Brief):
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
    """Simulated passes; None: no sampled row would be labelled."""
    memory: Memory | None
    speed: Speed | None
    """Speed of an actor; None: unknown."""
    cost: Cost | None
    """Time and money; None: the speed is unknown."""
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Facts that `raysp plan` prints, with their names."""
        return facts_of(self)

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences that `raysp plan` prints beside the facts."""
        unread = f"{count(len(self.unread), 'place')} of the sample could not be read: {''.join(self.unread[:1])}"
        return (*self.notes, *([unread] if self.unread else []))

    @property
    def derived(self) -> dict[str, object]:
        """Properties that the JSON of `raysp plan` has beside the fields."""
        return {"padding_efficiency": self.simulation and self.simulation.padding_efficiency}


def estimate(work: Plan | Pipeline, given: Given) -> Estimate:
    """Estimate a run from a sample of the rows that it labels; nothing is written, and Ray is not started.

    At most 32 places are read, about 2 MB of encoded audio each. The speed is the given one, or measured here; else
    that of earlier runs over the sink of the plan; else unknown.

    Args:
        work: the plan, or the pipeline to plan.
        given: size of the sample, speed and price.

    Raises:
        SpecError: an argument is invalid for any data.
        PlanError: the pipeline cannot be planned, or `like` is not alike; the device to calibrate on is not here.
    """
    sample, seed = SAMPLE_ROWS if given.sample is None else given.sample, given.seed or 0
    if sample < 1:
        raise SpecError(f"sample: found {sample}, expected at least 1 row")
    check_speed(given)
    plan = work if isinstance(work, Plan) else make_plan(work)
    rows = read_sample(plan, sample, seed=seed)
    simulation = simulate(plan, rows, seed=seed)
    speed = _speed(plan, rows, given, simulation)
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
        cost=_cost(plan, channels, speed, given.price) if channels and speed else None,
        notes=tuple(_notes(plan, rows)),
    )


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


def _speed(plan: Plan, rows: Sample, given: Given, simulation: Simulation | None) -> Speed | None:
    if given.rtfx is not None:
        return Speed(given.rtfx, "as stated")
    if given.calibrate:
        return calibrate(plan, rows)
    found = of_receipts(plan, given.like, given.like_options, channels_per_second=rows.channels_per_second)
    return found or of_measured_passes(plan, simulation)


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
    """Return sentences on behaviour of the run that a user may not expect."""
    notes = []
    late = [type(step).__name__ for step in plan.pipeline.late_steps]
    if late:
        notes.append(f"the steps {', '.join(late)} read decoded rows and were not applied to the sample")
    if plan.later:
        notes.append(
            "batches, memory and --calibrate are those of the first Label step; earlier runs have the whole speed"
        )
    most = plan.pipeline.max_error_rate
    kind = next((one for one in sample.outcomes if one != FILTERED), None)
    if kind is not None and not sample.is_ok.any():
        notes.append(f"none of {count(sample.num_rows, 'sampled row')} can be labelled. For {kind}: {remedy(kind)}")
    elif plan.rows_todo >= ENOUGH_ROWS and sample.num_rows and sample.error_share > most:
        notes.append(
            f"{sample.error_share:.0%} of the sampled rows are error rows: a run would stop, as max_error_rate={most:g}"
        )
    return notes


def facts_of(found: Estimate) -> list[tuple[str, str]]:
    """Return the facts in order; the lines of the histogram behind its first have no name."""
    bars = enumerate(_histogram(found.histogram))
    histogram = [("" if place else "durations", line) for place, line in bars]
    return [*_rows(found).items(), *histogram, *_needs(found).items()]


def _rows(found: Estimate) -> dict[str, str]:
    rows = f"{found.rows_sampled:,} of {count(found.rows, 'row')}"
    facts = {"sample": f"{rows} at {count(found.places, 'place')}, {megabytes(found.sampled_bytes)}"}
    if found.audio_seconds is not None and found.mean_seconds is not None and found.longest_seconds is not None:
        facts["audio"] = (
            f"{found.audio_seconds.as_time} to label; a row has {found.mean_seconds:.1f} s on average, at most "
            f"{found.longest_seconds:.1f} s in the sample"
        )
        if found.channel_seconds is not None and found.channel_seconds != found.audio_seconds:
            facts["channels"] = f"{found.channel_seconds.as_time} in all channels, each of which is labelled"
    shares = [f"{_share(share)} {reason}" for reason, share in found.not_labelled.items()]
    whole = found.labelled_whole
    short = [] if whole is None else [f"{_share(whole)} too short to be cut at pauses, labelled whole"]
    facts["rows"] = ", ".join([f"{_share(found.windowed)} cut into several windows", *short, *shares])
    return facts


def _needs(found: Estimate) -> dict[str, str]:
    facts = {}
    simulation, memory, speed, cost = found.simulation, found.memory, found.speed, found.cost
    if simulation is not None and simulation.padding_efficiency is not None:
        facts["padding"] = (
            f"{_share(simulation.padding_efficiency)} of the computed audio is real: "
            f"{count(simulation.windows, 'window')} in {count(simulation.passes, 'pass')}, simulated"
        )
    if memory is not None:
        gpu = "" if memory.gpu is None else f" and {_gigabytes(memory.gpu)} of its GPU"
        facts["memory"] = f"{_gigabytes(memory.actor)} an actor{gpu}, up to {_gigabytes(memory.reader)} a reader"
    if speed is None:
        facts["time"] = "unknown: give --rtfx N, --like OUT (a labelled sink), or --calibrate"
        return facts
    decode = f"; a process decodes at {speed.decode_rtfx:,.0f}" if speed.decode_rtfx else ""
    facts["speed"] = f"RTFx {speed.rtfx:,.1f} an actor, {speed.origin}{decode}"
    return facts | (cost.facts(f" on {count(cost.actors, 'actor')} without their start") if cost is not None else {})


def _histogram(bars: "tuple[Bar, ...]") -> list[str]:
    """Return a line for each bar: its range, bar and share."""
    most = max((bar.share for bar in bars), default=1.0)
    return [
        f"{_range(bar):>13} {'#' * round(BAR_WIDTH * bar.share / most):{BAR_WIDTH}} {bar.share:6.1%}" for bar in bars
    ]


def _range(bar: Bar) -> str:
    return f"{bar.low:g} s or more" if bar.high is None else f"{bar.low:g} to {bar.high:g} s"


def _share(share: float) -> str:
    return f"{share:.1%}"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2g} GB"
