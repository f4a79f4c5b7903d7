"""Printed form of estimates: facts, and a histogram of text."""

import dataclasses
from typing import TYPE_CHECKING

from raysp.cli.console import print_fact, say
from raysp.words import count, duration, megabytes

if TYPE_CHECKING:
    from raysp.labelling.planning.costs import Amount, Cost, Speed
    from raysp.training.estimates.training_estimate import TrainingEstimate
    from raysp.training.estimates.worker_memory import Memory as TrainingMemory
    from raysp.verbs.estimate.durations import Bar
    from raysp.verbs.estimate.run_estimate import Estimate

SAMPLE_ROWS = 256
LEAST_AMOUNT = 0.01
BAR_WIDTH = 40
"""Characters of the longest bar: with its edges and share, a line has 70."""


def estimate_json(found: "Estimate") -> dict[str, object]:
    """Return the content of `--json` for an estimate."""
    return {
        **dataclasses.asdict(found),
        "padding_efficiency": found.simulation and found.simulation.padding_efficiency,
    }


def print_estimate(found: "Estimate") -> None:
    """Print an estimate."""
    for name, fact in _facts(found).items():
        print_fact(name, fact)
    for place, line in enumerate(_histogram(found.histogram)):
        print_fact("" if place else "durations", line)
    for name, fact in _needs(found).items():
        print_fact(name, fact)
    for note in found.notes:
        say(note)
    if found.unread:
        say(f"{count(len(found.unread), 'place')} of the sample could not be read: {found.unread[0]}")


def _facts(found: "Estimate") -> dict[str, str]:
    rows = f"{found.rows_sampled:,} of {count(found.rows, 'row')}"
    facts = {"sample": f"{rows} at {count(found.places, 'place')}, {megabytes(found.sampled_bytes)}"}
    if found.audio_seconds is not None and found.mean_seconds is not None and found.longest_seconds is not None:
        facts["audio"] = (
            f"{_time(found.audio_seconds)} to label; a row has {found.mean_seconds:.1f} s on average, at most "
            f"{found.longest_seconds:.1f} s in the sample"
        )
        if found.channel_seconds is not None and found.channel_seconds != found.audio_seconds:
            facts["channels"] = f"{_time(found.channel_seconds)} in all channels, each of which is labelled"
    shares = [f"{_share(share)} {reason}" for reason, share in found.not_labelled.items()]
    whole = found.labelled_whole
    short = [] if whole is None else [f"{_share(whole)} too short to be cut at pauses, labelled whole"]
    facts["rows"] = ", ".join([f"{_share(found.windowed)} cut into several windows", *short, *shares])
    return facts


def _needs(found: "Estimate") -> dict[str, str]:
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
    return facts | (_cost(cost) if cost is not None else {})


def _cost(cost: "Cost") -> dict[str, str]:
    time = f"{_time(cost.wall_seconds)} on {count(cost.actors, 'actor')} without their start, {_hours(cost)}"
    return {"time": time, **_money(cost)}


def _hours(cost: "Cost") -> str:
    return f"{_amount(cost.device_hours)} {cost.device}-hours"


def _money(cost: "Cost") -> dict[str, str]:
    return {} if cost.money is None else {"money": _amount(cost.money)}


def print_training_estimate(found: "TrainingEstimate") -> None:
    """Print the estimate of a training, with warnings on stderr."""
    commit, memory = found.commit, found.memory
    kept = f"at most {commit.kept} are kept, up to {_bytes(commit.most_bytes)} in all"
    print_fact("commit", f"{_bytes(commit.num_bytes)} each time; {kept}")
    print_fact("memory", _memory(memory) + _measured(found.speed))
    for name, fact in _training_time(found).items():
        print_fact(name, fact)
    for note in found.notes:
        say(note)
    if memory.is_too_much:
        say(_too_much(memory))


def _memory(memory: "TrainingMemory") -> str:
    trained = memory.weights + memory.gradients + memory.moments + memory.average
    parts = (
        f"of which weights and optimiser {_bytes(trained)}, activations {_bytes(memory.activations)}, a commit "
        f"{_bytes(memory.copies)}, rows {_bytes(memory.rows)}"
    )
    more = f"{_bytes(memory.machine)} in all, " if memory.machine > memory.worker else ""
    machine = f"{more}this machine has {_bytes(memory.machine_has)}"
    if memory.gpu is None:
        return f"up to {_bytes(memory.worker)} a worker, {parts}; {machine}"
    there = "" if memory.gpu_has is None else f" of {_bytes(memory.gpu_has)}"
    on_gpu = f"{_bytes(memory.gpu)}{there} of a worker's GPU and {_bytes(memory.worker)} beside it"
    return f"up to {on_gpu}, {parts}; {machine}"


def _measured(speed: "Speed | None") -> str:
    return f"; {_bytes(speed.memory_bytes)} measured here" if speed and speed.memory_bytes else ""


def _too_much(memory: "TrainingMemory") -> str:
    """Return a warning with the remedies."""
    of_gpu = memory.gpu is not None and memory.gpu_has is not None and memory.gpu > memory.gpu_has
    needed, there = (memory.gpu, memory.gpu_has) if of_gpu else (memory.machine, memory.machine_has)
    place = "a worker's GPU" if of_gpu else "this machine"
    return (
        f"the training may need {_bytes(needed or 0)} of memory, and {place} has {_bytes(there or 0)}: lower "
        "batching.seconds or batching.window_seconds, raise batching.micro_batches, or set schedule.checkpointing=True "
        "(the estimate is an upper bound)"
    )


def _training_time(found: "TrainingEstimate") -> dict[str, str]:
    left, speed, cost = found.left, found.speed, found.cost
    if speed is None:
        return {"time": "unknown: give --rtfx N, --like SINK (of a training), or --calibrate"}
    facts = {"speed": f"RTFx {_three_digits(speed.rtfx)} a worker, {speed.origin}"}
    if left is None or cost is None:
        return {**facts, "time": "unknown: the rows are not indexed yet, and the source declares no durations"}
    if not left.share:
        return {**facts, "time": "no step is left"}
    steps = "" if left.steps is None else f" for {count(left.steps, 'step')}"
    share = "" if left.share == 1 else f", the {left.share:.0%} that are left,"
    workers = f"{count(cost.actors, 'worker')} without their start, evaluations and commits"
    time = f"{_time(cost.wall_seconds)}{steps}{share} on {workers}, {_hours(cost)}"
    return {**facts, "time": time, **_money(cost)}


def _histogram(bars: "tuple[Bar, ...]") -> list[str]:
    """Return a line for each bar: its range, bar and share."""
    most = max((bar.share for bar in bars), default=1.0)
    return [
        f"{_range(bar):>13} {'#' * round(BAR_WIDTH * bar.share / most):{BAR_WIDTH}} {bar.share:6.1%}" for bar in bars
    ]


def _range(bar: "Bar") -> str:
    return f"{bar.low:g} s or more" if bar.high is None else f"{bar.low:g} to {bar.high:g} s"


def _time(amount: "Amount") -> str:
    return f"{duration(amount.value)}{f' +- {duration(amount.margin)}' if amount.margin else ''}"


def _amount(amount: "Amount") -> str:
    """Return an amount of hours or money with three digits: "12,345 +- 600", "0.42", "below 0.01"."""
    if 0 < amount.value < LEAST_AMOUNT:
        return f"below {LEAST_AMOUNT}"
    return f"{_three_digits(amount.value)}{f' +- {_three_digits(amount.margin)}' if amount.margin else ''}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _share(share: float) -> str:
    return f"{share:.1%}"


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.2g} GB"


def _bytes(num_bytes: float) -> str:
    """Return bytes with three digits: "12.9 MB", "1.07 GB"."""
    return f"{_three_digits(num_bytes / 1e6)} MB" if num_bytes < 1e9 else f"{_three_digits(num_bytes / 1e9)} GB"
