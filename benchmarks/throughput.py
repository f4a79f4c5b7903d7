"""Which share of the bare model's speed is left when `raysp run` does the whole job?

    python -m benchmarks throughput
    python -m benchmarks throughput --corpora test-like --checkpoints small --minutes 60 --repeats 5 --json figures.json

S0 is the bare model, S4 is `raysp run`, from shard bytes to committed label shards. They run in turn (A B A B) in
separate processes. If the labels of a run differ from the bare model's in one letter, the measurement stops.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import raysp
from benchmarks.inputs import checkpoints, corpus
from benchmarks.programs import processes, systems
from benchmarks.tables import show, spread
from benchmarks.timing import in_turn

FROM_SHARE, TO_SHARE = 0.1, 0.9
"""Of the audio: what lies between is the steady state."""
MINUTES = {"small": 60.0, "base": 10.0}
"""So much audio that a run of each checkpoint is long against the start of Ray."""
SHARDS = {"small": 12, "base": 2}
"""So few that a shard is several blocks, or so many that the run has ten."""
Bare = Mapping[str, Any]
"""Figures and texts of one run of S0."""


@dataclass(frozen=True)
class Run:
    """One run of S4."""

    rtfx: float
    """From the call to the last commit."""
    steady_rtfx: float
    startup_seconds: float
    """From the call to the first block that a model begins."""
    steady_busy_share: float
    """Of the steady state's wall time, that in which a model was at work (actors counted together)."""
    wait_share: float
    padding_efficiency: float
    blocks: int
    peak_gigabytes: float
    cpu_seconds_per_audio_hour: float
    """Of the whole process tree in steady state."""
    actor_cpu_seconds_per_audio_hour: float
    """The actors' part of it; wall time beyond it is time in which other processes had the core."""
    audio_seconds: float
    word_error_rate: float


def label(checkpoint: Path, shards: str, settings: Sequence[str]) -> tuple[Run, dict[str, str]]:
    """Run S4. Returns its results, and its texts by id."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        sink = Path(folder) / "labels"
        watched = systems.watch(systems.run_command(checkpoint, shards, sink, settings))
        return run_figures(json.loads(watched.stdout), watched, sink), systems.column(f"{sink}/*.parquet", "pred_text")


def run_figures(result: Mapping[str, float], watched: processes.Watched, sink: Path) -> Run:
    """Return the results of a run from its result, its receipts and its watched processes."""
    word_errors = raysp.status(str(sink)).word_errors
    blocks = [{**piece, **piece["counts"]} for piece in systems.pieces(sink)]
    start, end = steady_window(blocks)
    audio = sum(block["audio_seconds"] for block in blocks)
    committed = max(path.stat().st_mtime for path in sink.glob("**/*.parquet"))
    steady_audio = (TO_SHARE - FROM_SHARE) * audio
    busy = sum(max(0.0, min(block["finished"], end) - max(_begun(block), start)) for block in blocks)
    actors = {int(str(block["actor"]).rpartition(":")[2]) for block in blocks}
    actor_cpu = sum(watched.cpu_seconds(start, end, pid) for pid in actors)
    return Run(
        rtfx=audio / (committed - watched.started),
        steady_rtfx=steady_audio / (end - start),
        startup_seconds=min(_begun(block) for block in blocks) - watched.started,
        steady_busy_share=busy / (end - start),
        wait_share=result["wait_share"] or 0.0,
        padding_efficiency=result["padding_efficiency"] or 1.0,
        blocks=sum(block["blocks"] for block in blocks),
        peak_gigabytes=watched.peak_bytes / 1e9,
        cpu_seconds_per_audio_hour=watched.cpu_seconds(start, end) / steady_audio * 3600,
        actor_cpu_seconds_per_audio_hour=actor_cpu / steady_audio * 3600,
        audio_seconds=audio,
        word_error_rate=word_errors.rate if word_errors else 0.0,
    )


def _begun(block: Mapping[str, float]) -> float:
    """Time at which a model took a block. `finished` is recorded after staging, some milliseconds after the model."""
    return block["finished"] - block["busy_seconds"]


def steady_window(blocks: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return the times at which 10 % and 90 % of the audio were labelled, at a constant rate within a block."""
    begun = np.array([_begun(block) for block in blocks])
    finished = np.array([block["finished"] for block in blocks])
    audio = np.array([block["audio_seconds"] for block in blocks])
    times = np.unique(np.concatenate([begun, finished]))
    share = ((times[:, None] - begun) / (finished - begun)).clip(0, 1) @ audio / audio.sum()
    return float(np.interp(FROM_SHARE, share, times)), float(np.interp(TO_SHARE, share, times))


def check_agreement(bare_texts: Mapping[str, str], run_texts: Mapping[str, str]) -> None:
    """Exit if the labels of the run differ from the bare model's in any letter."""
    different = [name for name in bare_texts if run_texts.get(name) != bare_texts[name]]
    if different or len(bare_texts) != len(run_texts):
        shown = "; ".join(f"{n}: {bare_texts[n]!r} bare, {run_texts.get(n)!r} run" for n in different[:3])
        raise SystemExit(f"{len(different)} of {len(bare_texts)} labels differ, so this run does not count: {shown}")


def compare(checkpoint: Path, shards: str, args: argparse.Namespace) -> dict[str, Any]:
    """Find the library and the budget with which S0 is fastest, then run S0 and S4 in turn."""
    libraries = ",".join(name for name in args.libraries.split(",") if importlib.util.find_spec(name))
    options = {"threads": args.threads, "device": args.device}
    options["dtype"] = "bfloat16" if args.device == "cuda" else "float32"
    tried, _ = systems.bare(checkpoint, shards, libraries=libraries, budgets=args.budgets, **options)
    best = min(tried, key=lambda one: one["cpu_seconds" if args.by_cpu else "seconds"])
    texts = next(one["texts"] for one in tried if one["library"] == "raysp")
    settings = [f"steps.1.pool.cpus={args.threads}", f"steps.1.device={args.device}"]
    settings += [f"steps.1.batch_seconds={args.batch_seconds:g}"] if args.batch_seconds else []

    def bare() -> Bare:
        [figures], _ = systems.bare(
            checkpoint, shards, libraries=best["library"], budgets=best["budget_seconds"], **options
        )
        return _without_texts(figures)

    def run() -> dict[str, Any]:
        figures, run_texts = label(checkpoint, shards, settings)
        check_agreement(texts, run_texts)
        return asdict(figures)

    found = in_turn({"s0": bare, "s4": run}, args.repeats)
    agreement = {one["library"]: np.mean([one["texts"][name] == texts[name] for name in texts]) for one in tried}
    return {**found, "s0_tried": [_without_texts(one) for one in tried], "s0_agreement": agreement}


def _without_texts(figures: Bare) -> Bare:
    return {name: value for name, value in figures.items() if name != "texts"}


def row(checkpoint: str, kind: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, object]:
    """Return the table row of one comparison."""
    s0, s4 = found["s0"], found["s4"]

    def of(name: str) -> list[float]:
        return [one[name] for one in s4]

    bare_rtfx = [one["rtfx"] for one in s0]
    hours = s4[0]["audio_seconds"] / 3600
    return {
        "checkpoint": checkpoint,
        "corpus": kind,
        "S0": f"{s0[0]['library']}, {s0[0]['budget_seconds']:g} s",
        "S0 RTFx": spread(bare_rtfx),
        "S4 steady RTFx": spread(of("steady_rtfx")),
        "S4/S0": f"{statistics.median(of('steady_rtfx')) / statistics.median(bare_rtfx):.3f}",
        "S4 RTFx whole": spread(of("rtfx")),
        "busy": spread(of("steady_busy_share"), 3),
        "waited": spread(of("wait_share"), 3),
        "padding S0, S4": f"{s0[0]['padding_efficiency']:.3f}, {s4[0]['padding_efficiency']:.3f}",
        "blocks": f"{s4[0]['blocks']:g}",
        "start s": spread(of("startup_seconds")),
        "peak GB": f"{max(of('peak_gigabytes')):.2f}",
        "CPU s/audio h, S0": f"{statistics.median(one['cpu_seconds'] for one in s0) / hours:.0f}",
        "S4": spread(of("cpu_seconds_per_audio_hour"), 0),
        "S4's actors": spread(of("actor_cpu_seconds_per_audio_hour"), 0),
        "WER": f"{s4[0]['word_error_rate']:.3f}",
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    corpus.add_digits(parser)
    parser.add_argument(
        "--corpora", default="test-like,train-like", help=f"several of {', '.join(corpus.KINDS)} (%(default)s)"
    )
    parser.add_argument("--checkpoints", default="small,base", help=f"{checkpoints.NAMES}; several (%(default)s)")
    parser.add_argument("--minutes", type=float, help=f"minutes of each corpus; default: {MINUTES}")
    parser.add_argument("--shards", type=int, help=f"shards of each corpus; default: {SHARDS}")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the model, in S0 and S4")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="device of the model")
    parser.add_argument("--libraries", default="raysp,transformers", help="libraries for S0")
    parser.add_argument("--budgets", default="10,30,60", help="padded seconds per batch, from which S0 takes the best")
    parser.add_argument("--batch-seconds", type=float, help="batch_seconds of S4; default: chosen by raysp")
    parser.add_argument("--by-cpu", action="store_true", help="choose S0 by CPU time, for a shared machine")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure every checkpoint with every corpus and print a table."""
    found: dict[str, dict[str, Any]] = {}
    rows = []
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as work:
        for name in args.checkpoints.split(","):
            checkpoint, size = checkpoints.named(name, Path(work)), "small" if name == "small" else "base"
            for kind in args.corpora.split(","):
                minutes, shards = args.minutes or MINUTES[size], args.shards or SHARDS[size]
                folder = Path(work) / f"{kind}-{minutes:g}-{shards}"
                corpus.build(folder, kind, minutes=minutes, shards=shards, **corpus.digits_of(args))
                one = found[f"{name} {kind}"] = compare(checkpoint, f"{folder}/*.parquet", args)
                rows.append(row(name, kind, one))
                print(f"measured {name}, {kind}, {minutes:g} minutes", file=sys.stderr)
    show(f"S0 (bare model) against S4 (raysp run), {args.threads} thread(s), median (min-max) of {args.repeats}", rows)
    return found
