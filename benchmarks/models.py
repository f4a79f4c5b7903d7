"""How fast are the models, compared with transformers?

    python -m benchmarks models --threads 1,2 --repeats 5 --only wav2vec2

Both libraries get the same random weights and the same input, in turn, in float32. The table has medians and their
ratio, by wall time and by CPU time of the process (more stable on a shared machine), and the largest difference of the
outputs. A CPU ratio below the floor of a case is marked. An architecture is one line of `CASES`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from benchmarks.tables import show
from benchmarks.timing import Taken, median, timed

SAMPLE_RATE = 16000
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
GROUP_FLOOR, LAYER_FLOOR = 1.05, 1.25

Inputs = Mapping[str, torch.Tensor]


def waves(rows: int, seconds: float) -> Inputs:
    """Return noise of one length, which needs no mask in either library."""
    generator = torch.Generator().manual_seed(0)
    return {"input_values": torch.randn(rows, round(seconds * SAMPLE_RATE), generator=generator)}


def features(frames_per_second: int, bins: int) -> Callable[[int, float], Inputs]:
    """Return a function that makes log-mels of noise of one length."""

    def inputs(rows: int, seconds: float) -> Inputs:
        shape = rows, round(seconds * frames_per_second), bins
        return {"input_features": torch.randn(shape, generator=torch.Generator().manual_seed(0))}

    return inputs


@dataclass(frozen=True)
class Case:
    """One model: the name of its class in both libraries, and the fields of its configuration."""

    name: str
    model: str
    floor: float
    """Least ratio of their time to ours."""
    flags: Mapping[str, object] = field(default_factory=dict)
    inputs: Callable[[int, float], Inputs] = waves


SEW_D_MID = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "num_hidden_layers": 24}
CASES = (
    *(
        Case(f"{model.removesuffix('ForCTC').lower()} {front_end}", model, floor, flags)
        for model in ("UniSpeechForCTC", "Wav2Vec2ForCTC", "HubertForCTC")
        for front_end, floor, flags in (("group", GROUP_FLOOR, {}), ("layer", LAYER_FLOOR, LAYER_NORM))
    ),
    Case("sew-d mid", "SEWDModel", 1.5, SEW_D_MID),
    Case("wav2vec2-bert, 3 layers", "Wav2Vec2BertModel", 1.4, {"num_hidden_layers": 3}, features(50, 160)),
    Case("parakeet, 6 layers", "ParakeetEncoder", 1.2, {"num_hidden_layers": 6}, features(100, 80)),
)


@dataclass(frozen=True)
class Measured:
    """Times of both libraries for one case."""

    case: str
    threads: int
    floor: float
    theirs: Taken
    ours: Taken
    """Medians."""
    difference: float = 0.0

    @property
    def cpu_ratio(self) -> float:
        """CPU time of transformers divided by that of raysp."""
        return self.theirs.cpu / self.ours.cpu


def pair_of(name: str, flags: Mapping[str, object]) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the model of transformers with random weights, and that of raysp with the same weights."""
    import transformers

    import raysp.models

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    cls, our_cls = getattr(transformers, name), getattr(raysp.models, name)
    theirs = cls(cls.config_class(**flags)).eval()
    ours = our_cls(our_cls.config_class(**flags)).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def measure(case: Case, *, threads: Sequence[int], repeats: int, rows: int, seconds: float) -> list[Measured]:
    """Build both models, compare their outputs and time them."""
    theirs, ours = pair_of(case.model, case.flags)  # outside inference mode, as loading is
    inputs = case.inputs(rows, seconds)
    found = []
    with torch.inference_mode():
        for count in threads:
            torch.set_num_threads(count)
            difference = float((theirs(**inputs)[0] - ours(**inputs)[0]).abs().max())  # and warms both up
            taken = timed({"theirs": lambda: theirs(**inputs), "ours": lambda: ours(**inputs)}, repeats)
            medians = {library: median(times) for library, times in taken.items()}
            found.append(Measured(case.name, count, case.floor, **medians, difference=difference))
    return found


def row(one: Measured) -> dict[str, object]:
    """Return a table row."""
    return {
        "model": one.case,
        "threads": one.threads,
        "transformers s": f"{one.theirs.wall:.2f}",
        "raysp s": f"{one.ours.wall:.2f}",
        "ratio": f"{one.theirs.wall / one.ours.wall:.2f}",
        "CPU ratio": f"{one.cpu_ratio:.2f}",
        "floor": f"{one.floor:.2f}",
        "difference": f"{one.difference:.0e}",
        "": "" if one.cpu_ratio >= one.floor else "below its floor",
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--only", default="", help="cases with this in their names, such as 'layer'")
    parser.add_argument("--threads", default="1,2", help="torch threads")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--rows", type=int, default=1, help="rows per batch")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of audio per row")


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure and print."""
    threads = [int(count) for count in args.threads.split(",")]
    chosen = [case for case in CASES if args.only in case.name]
    if not chosen:
        raise SystemExit(f"--only {args.only!r}: no such case among {', '.join(case.name for case in CASES)}")
    rows: list[dict[str, object]] = []
    for case in chosen:
        found = measure(case, threads=threads, repeats=args.repeats, rows=args.rows, seconds=args.seconds)
        rows += map(row, found)
        show(case.name, rows[-len(threads) :])
    show(f"float32, {args.rows} x {args.seconds:g} s, medians of {args.repeats}", rows)
    return rows
