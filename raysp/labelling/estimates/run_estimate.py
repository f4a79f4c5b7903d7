"""Estimate of a run: its hours of audio, speed, time and cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raysp.devices import is_accelerator
from raysp.errors import PlanError, SpecError
from raysp.labelling.estimates.row_sampling import SAMPLE_ROWS, Sample, read_sample
from raysp.labelling.planning.costs import Amount, Cost, Speed, unpriced
from raysp.labelling.planning.opening import plan as make_plan
from raysp.labelling.planning.run_plan import Plan
from raysp.labelling.planning.trust import open_recorded
from raysp.ops.rows import ERROR, FILTERED, OK, remedy
from raysp.sink import receipts
from raysp.sink.receipts import Counts
from raysp.sink.run_record import checkpoint_digests
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import EACH
from raysp.words import Brief, count, duration, megabytes
from raysp.work import EstimateOptions, SinkRequest

ENOUGH_ROWS = 200
"""Rows after which a run stops for its share of errors."""
MOST_RUNS = 3
"""Last runs whose receipts give a speed."""
MOST_BATCHES = 8
"""Last batches of receipts that are read of each of them."""


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
    audio_origin: Literal["headers", "source"]
    """Origin of `audio_seconds`: headers of the sampled recordings, or durations that the source declares."""
    channel_seconds: Amount | None
    """Seconds of audio that the model labels, summed over channels if each channel is labelled."""
    mean_seconds: float | None
    """Mean duration of the rows that would be labelled."""
    longest_seconds: float | None
    not_labelled: Mapping[str, float]
    """Share of rows by error type or reason of skipping, as far as headers and columns show it."""
    error_share: float
    speed: Speed | None
    """Speed of an actor through all `Label` steps; None: unknown."""
    cost: Cost | None
    """Time and money; None: the speed is unknown."""
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Facts that `raysp plan` prints, with their names."""
        sampled = f"{self.rows_sampled:,} of {count(self.rows, 'row')} at {count(self.places, 'place')}"
        facts = [("sample", f"{sampled}, {megabytes(self.sampled_bytes)}")]
        if self.audio_seconds is not None and self.mean_seconds is not None:
            row = f"a row has {self.mean_seconds:.1f} s on average, at most {self.longest_seconds:.1f} s in the sample"
            by = "headers" if self.audio_origin == "headers" else "the durations of the source"
            facts.append(("audio", f"{self.audio_seconds.as_time} to label by {by}; {row}"))
            if self.channel_seconds is not None and self.channel_seconds != self.audio_seconds:
                facts.append(("channels", f"{self.channel_seconds.as_time} in all channels, each of which is labelled"))
        if self.not_labelled:
            facts.append(("left out", ", ".join(f"{share:.1%} {kind}" for kind, share in self.not_labelled.items())))
        if self.speed is None:
            return [*facts, ("time", "unknown: give --rtfx N, --like OUT (a labelled sink), or --calibrate")]
        facts.append(("speed", f"{self.speed.rtfx:,.1f}x real time on one actor, {self.speed.origin}"))
        cost = self.cost
        return [*facts, *(cost.facts(f" on {count(cost.actors, 'actor')} once started").items() if cost else ())]

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences that `raysp plan` prints after the facts."""
        unread = f"{count(len(self.unread), 'place')} of the sample could not be read: {''.join(self.unread[:1])}"
        return (*self.notes, *([unread] if self.unread else []))


def estimate(work: Plan | Pipeline, options: EstimateOptions) -> Estimate:
    """Estimate a run from a sample of the rows that it labels; nothing is written, and Ray is not started.

    At most 32 places are read, about 2 MB of encoded audio each. The speed is stated by the options or measured here;
    otherwise it is the speed of earlier runs over the sink of the plan, or unknown.

    Args:
        work: the plan, or the pipeline to plan.
        options: size of the sample, speed and price.

    Raises:
        SpecError: an argument is invalid for any data.
        PlanError: the pipeline cannot be planned, or `like` is not alike; the device to calibrate on is not here.
    """
    num_rows = SAMPLE_ROWS if options.sample is None else options.sample
    if num_rows < 1:
        raise SpecError(f"sample: found {num_rows}, expected at least 1 row")
    plan = work if isinstance(work, Plan) else make_plan(work)
    if not plan.pipeline.reads_audio:
        raise PlanError("the pipeline reads no audio; `raysp plan` counts its rows without an estimate")
    sample = read_sample(plan, num_rows, seed=options.seed or 0)
    speed = _speed(plan, sample, options)
    declared = _declared(plan)
    audio = sample.audio_seconds(declared)
    channels = audio.times(sample.channels_per_second) if audio else None
    share_ok = sample.share(OK)
    cost, settings, on_gpu = None, plan.settings, is_accelerator(plan.settings.device)
    if channels and speed:
        cost = Cost.of(
            channels,
            speed,
            actors=plan.pool_size.high,
            devices=settings.gpus_per_actor if on_gpu else settings.cpus_per_actor.number,
            device="GPU" if on_gpu else "CPU",
            price=options.price,
        )
    return Estimate(
        rows=sample.rows_todo,
        rows_sampled=len(sample.statuses),
        places=len(sample.parts),
        sampled_bytes=sum(part.num_bytes for part in sample.parts),
        unread=sample.unread,
        audio_seconds=audio,
        audio_origin="headers" if declared is None else "source",
        channel_seconds=channels,
        mean_seconds=float(sample.weights @ sample.seconds) / share_ok if share_ok else None,
        longest_seconds=float(sample.seconds.max()) if share_ok else None,
        not_labelled=sample.outcomes,
        error_share=sample.share(ERROR),
        speed=speed,
        cost=cost,
        notes=(*_notes(plan, sample), *unpriced(options, speed)),
    )


def _declared(plan: Plan) -> float | None:
    """Return the seconds that the source declares for the rows to label.

    None: a shard declares no seconds, or only a part of its rows is labelled.
    """
    seconds = [todo.shard.seconds for todo in plan.todo if todo.shard.seconds is not None]
    is_whole = plan.rows_todo == sum(todo.shard.num_rows for todo in plan.todo)
    return sum(seconds) if is_whole and len(seconds) == len(plan.todo) else None


def _speed(plan: Plan, sample: Sample, options: EstimateOptions) -> Speed | None:
    if options.rtfx is not None:
        return Speed(options.rtfx, "as stated")
    if options.calibrate:
        from raysp.labelling.estimates.calibration import calibrate

        return calibrate(plan, sample)
    return _of_receipts(plan, options, sample.channels_per_second)


def _of_receipts(plan: Plan, options: EstimateOptions, channels_per_second: float) -> Speed | None:
    """Return the speed of the last runs over a sink, waiting for input included; None: it has no such receipts."""
    like = options.like
    if like is None:
        sink = plan.sink
        if (record := sink.record()) is None:
            return None
    else:
        sink, record = open_recorded(SinkRequest(like, options.like_options))
        ours, theirs = checkpoint_digests(plan.parts), checkpoint_digests(record.parts)
        if len(ours) != len(theirs):
            raise PlanError(
                f"--like {like}: its pipeline has {count(len(theirs), 'Label step')}, this one {len(ours)}; name a "
                "sink of the same checkpoints, or state the speed with --rtfx"
            )
        if ours != theirs:
            raise PlanError(
                f"--like {like}: its labels were made with another checkpoint (digest {', '.join(theirs)}, this plan "
                f"has {', '.join(ours)}); name a sink of the same checkpoint, or state the speed with --rtfx"
            )
    counts, runs, machine = Counts(), 0, _machine(plan.run_settings)
    for run in reversed(record.runs):
        if runs < MOST_RUNS and _machine(run.resolved) == machine:
            pieces, _ = receipts.recent_pieces(sink.store, run.run_id, MOST_BATCHES)
            counts = sum((piece.counts for piece in pieces), counts)
            runs += bool(pieces)
    total = counts.busy_seconds + counts.wait_seconds
    if counts.audio_seconds and total > 0:
        waited = f", waiting for input {counts.wait_seconds / total:.0%} of the time"
        origin = f"receipts of {count(runs, 'run')} over {sink.url}: {duration(counts.audio_seconds)} of audio{waited}"
        is_each = EACH in (value for key, value in record.parts.items() if key.endswith(".channel"))
        return Speed((channels_per_second if is_each else 1.0) * counts.audio_seconds / total, origin)
    if like is not None:
        machines = dict.fromkeys(_machine(run.resolved) for run in record.runs)
        if machine in machines:
            why = f"no run with {machine} has receipts of labelled pieces"
        else:
            why = f"no run with receipts used {machine}, as this plan does; found {'; '.join(machines) or 'none'}"
        raise PlanError(f"--like {like}: {why}. Name another sink, or state the speed with --rtfx")
    return None


def _machine(settings: Mapping[str, object]) -> str:
    """Return the kind of device of an actor by the settings of a run; on CPUs with their number."""
    device, gpus = settings.get("device"), settings.get("gpus_per_actor")
    of_device = f"{settings.get('cpus_per_actor')} CPUs" if device == "cpu" or gpus is None else f"{gpus:g} GPUs"
    later = settings.get("later_labels")
    return f"{settings.get('dtype')} on {device}, {of_device} an actor" + (f", then {later}" if later else "")


def _notes(plan: Plan, sample: Sample) -> list[str]:
    """Return sentences on behaviour of the run that a user may not expect."""
    notes = []
    late = [type(step).__name__ for step in plan.pipeline.flow.late]
    if late:
        notes.append(f"not applied to the sample, as they add columns or read added ones: {', '.join(late)}")
    most, errors = plan.pipeline.max_error_rate, sample.share(ERROR)
    kind = next((kind for kind in sample.outcomes if kind != FILTERED), None)
    if kind is not None and not sample.share(OK):
        rows = count(len(sample.statuses), "sampled row")
        notes.append(f"none of {rows} can be labelled. For {kind}: {remedy(kind)}")
    elif plan.rows_todo >= ENOUGH_ROWS and errors > most:
        notes.append(f"{errors:.0%} of the sampled rows are error rows: a run would stop, as max_error_rate={most:g}")
    return notes
