"""Each model compared with transformers: the same random weights and the same input, in turn, float32.

    python -m benchmarks models --threads 1,2 --repeats 5 --only wav2vec2

It prints medians and their ratio, by wall time and by CPU time of the process (more stable on a shared machine), and
the largest difference of the outputs. A CPU ratio below the minimum of a case is marked. An architecture is one line of
`CASES`.

Question of docs/evidence/performance.md, "Models": how fast are the models, compared with transformers?
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.tables import show, write_json

SAMPLE_RATE = 16000
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
GROUP_FLOOR, LAYER_FLOOR = 1.05, 1.25

Inputs = Mapping[str, torch.Tensor]


def waves(rows: int, seconds: float) -> Inputs:
    """Return noise of one length, which needs no mask in either library."""
    generator = torch.Generator().manual_seed(0)
    return {"input_values": torch.randn(rows, round(seconds * SAMPLE_RATE), generator=generator)}


@dataclass(frozen=True)
class Case:
    """One model: the name of its class in both libraries, and the fields of its configuration."""

    name: str
    model: str
    floor: float
    """Least ratio of their time to ours."""
    flags: Mapping[str, object] = field(default_factory=dict)
    inputs: Callable[[int, float], Inputs] = waves


CASES = tuple(
    Case(f"{model.removesuffix('ForCTC').lower()} {front_end}", model, floor, flags)
    for model in ("UniSpeechForCTC", "Wav2Vec2ForCTC", "HubertForCTC")
    for front_end, floor, flags in (("group", GROUP_FLOOR, {}), ("layer", LAYER_FLOOR, LAYER_NORM))
)


@dataclass
class Measured:
    """Times of both libraries for one case."""

    case: str
    threads: int
    floor: float
    theirs: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    their_cpu: list[float] = field(default_factory=list)
    our_cpu: list[float] = field(default_factory=list)
    difference: float = 0.0

    @property
    def ratio(self) -> float:
        """Median wall time of transformers divided by that of raysp."""
        return statistics.median(self.theirs) / statistics.median(self.ours)

    @property
    def cpu_ratio(self) -> float:
        """Median CPU time of transformers divided by that of raysp."""
        return statistics.median(self.their_cpu) / statistics.median(self.our_cpu)


def build(case: Case) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the model of transformers with random weights, and that of raysp with the same weights."""
    import transformers

    import raysp.models

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    cls = getattr(transformers, case.model)
    theirs = cls(cls.config_class(**case.flags)).eval()
    mine = getattr(raysp.models, case.model)
    ours = mine(mine.config_class(**case.flags)).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def measure(case: Case, *, threads: Sequence[int], repeats: int, rows: int, seconds: float) -> list[Measured]:
    """Build both models and time them."""
    theirs, ours = build(case)  # outside inference mode, as loading is: what is folded once is folded once
    inputs = case.inputs(rows, seconds)
    with torch.inference_mode():
        return time_pairs(case, theirs, ours, inputs, threads, repeats)


def time_pairs(
    case: Case, theirs: torch.nn.Module, ours: torch.nn.Module, inputs: Inputs, threads: Sequence[int], repeats: int
) -> list[Measured]:
    """Time both libraries in turn, alternating which one is first."""
    found = []
    for count in threads:
        torch.set_num_threads(count)
        one = Measured(case.name, count, case.floor)
        one.difference = float((theirs(**inputs)[0] - ours(**inputs)[0]).abs().max())  # and warms both up
        for repeat in range(repeats):
            pair = [(theirs, one.theirs, one.their_cpu), (ours, one.ours, one.our_cpu)]
            for model, wall, cpu in pair if repeat % 2 == 0 else pair[::-1]:
                started, cpu_started = time.perf_counter(), time.process_time()
                model(**inputs)
                wall.append(time.perf_counter() - started)
                cpu.append(time.process_time() - cpu_started)
        found.append(one)
    return found


def row(one: Measured) -> dict[str, object]:
    """Return a table row."""
    return {
        "model": one.case,
        "threads": one.threads,
        "transformers s": f"{statistics.median(one.theirs):.2f}",
        "raysp s": f"{statistics.median(one.ours):.2f}",
        "ratio": f"{one.ratio:.2f}",
        "CPU ratio": f"{one.cpu_ratio:.2f}",
        "floor": f"{one.floor:.2f}",
        "difference": f"{one.difference:.0e}",
        "": "" if one.cpu_ratio >= one.floor else "below its floor",
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases with this in their names, such as 'layer'")
    parser.add_argument("--threads", default="1,2", help="torch threads")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--rows", type=int, default=1, help="rows per batch")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of audio per row")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    threads = [int(count) for count in args.threads.split(",")]
    chosen = [case for case in CASES if args.only in case.name]
    if not chosen:
        raise SystemExit(f"--only {args.only!r}: no such case among {', '.join(case.name for case in CASES)}")
    measured: list[Measured] = []
    for case in chosen:
        measured += measure(case, threads=threads, repeats=args.repeats, rows=args.rows, seconds=args.seconds)
        show(case.name, [row(one) for one in measured[-len(threads) :]])
    show(f"float32, {args.rows} x {args.seconds:g} s, medians of {args.repeats}", [row(one) for one in measured])
    if args.json:
        write_json(args.json, [{**vars(one), "ratio": one.ratio, "cpu_ratio": one.cpu_ratio} for one in measured])


if __name__ == "__main__":
    main()
