"""S0 and S4 compared: the bare model and `raysp run`, from shard bytes to committed label shards.

    python -m benchmarks throughput
    python -m benchmarks throughput --corpora test-like --checkpoints small --minutes 60 --repeats 5 --json figures.json

The two run in turn (A B A B) in separate processes. If the labels of a run differ from the bare model's in one letter,
the measurement stops.

Question of docs/evidence/performance.md, "Throughput":
which share of the bare model's speed is left when raysp does the whole job?
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import whole
from benchmarks.inputs import checkpoints, corpus
from benchmarks.programs import processes
from benchmarks.tables import show, write_json

PIPELINE = Path(__file__).parent.parent / "pipelines" / "label_digits.py"
FROM_SHARE, TO_SHARE = 0.1, 0.9
"""Of the audio: what lies between is the steady state."""
CORPORA = "test-like,train-like"
CHECKPOINTS = "small,base"
MINUTES = {"small": 60.0, "base": 10.0}
"""So much audio that a run of each checkpoint is long against the start of Ray."""
SHARDS = {"small": 12, "base": 2}
"""So few that a shard is several blocks, or so many that the run has ten."""


@dataclass(frozen=True)
class Bare:
    """One run of S0."""

    library: str
    budget_seconds: float
    seconds: float
    cpu_seconds: float
    rtfx: float
    padding_efficiency: float
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """One run of S4."""

    seconds: float
    """From the call to its return."""
    rtfx: float
    """From the call to the last commit."""
    steady_rtfx: float
    startup_seconds: float
    """From the call to the first block in a model's hands."""
    closing_seconds: float
    """From the last commit to the return."""
    steady_busy_share: float
    """Of the steady state's wall time, that in which a model was at work (actors counted together)."""
    wait_share: float
    padding_efficiency: float
    forward_seconds: float
    """Of all blocks."""
    blocks: int
    peak_gigabytes: float
    cpu_seconds_per_audio_hour: float
    """Of the whole process tree in steady state."""
    actor_cpu_seconds_per_audio_hour: float
    """The actors' part of it; wall time beyond it is time in which others had the core."""
    cpu_seconds: float
    """Of the whole process tree, start and end included."""
    audio_seconds: float
    word_error_rate: float


def bare(
    checkpoint: Path, shards: str, libraries: Sequence[str], budgets: Sequence[float], threads: int, device: str
) -> list[Bare]:
    """Run S0 in a new process. Returns a result for each library and budget."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.bare", str(checkpoint), shards, "--texts", "--json", file.name]
        command += ["--libraries", ",".join(libraries), "--budgets", ",".join(f"{one:g}" for one in budgets)]
        command += ["--threads", str(threads), "--device", device]
        command += ["--dtype", "bfloat16" if device == "cuda" else "float32"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=PIPELINE.parent.parent)
        found = json.loads(Path(file.name).read_text())
    return [
        Bare(
            one["library"],
            one["budget_seconds"],
            one["median"],
            one["cpu_seconds"][0],
            one["rtfx"],
            one["padding_efficiency"],
            found["texts"][one["library"]],
        )
        for one in found["measured"]
    ]


def label(checkpoint: Path, shards: str, sink: Path, settings: Sequence[str]) -> tuple[Run, dict[str, str]]:
    """Run S4. Returns its results, and its texts by id."""
    changes = [f"source.url={shards}", f"steps.1.checkpoint={checkpoint}", f"sink.url={sink}", *settings]
    command = [sys.executable, "-m", "raysp.cli", "run", str(PIPELINE), "--json"]
    command += [part for change in changes for part in ("--set", change)]
    env = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    watched = processes.run(command, env)
    if watched.code:
        raise SystemExit(f"{' '.join(command)} left with {watched.code}: {watched.stderr[-2000:]}")
    return figures(json.loads(watched.stdout), watched, sink), _texts(sink)


def figures(result: Mapping[str, float], watched: processes.Watched, sink: Path) -> Run:
    """Return the results of a run from its result, its receipts and its watched processes."""
    import raysp

    word_errors = raysp.status(str(sink)).word_errors
    pieces = [one for one in whole.receipts(sink) if one["kind"] == "piece"]
    blocks = [{**one, **one["counts"], "forward_seconds": one["counts"]["busy_seconds"]} for one in pieces]
    start, end = steady_window(blocks)
    audio = sum(one["audio_seconds"] for one in blocks)
    committed = max(path.stat().st_mtime for path in sink.glob("**/*.parquet"))
    steady_audio = (TO_SHARE - FROM_SHARE) * audio
    forward = sum(_overlap(one, start, end) for one in blocks)
    pids = {int(str(one["actor"]).rpartition(":")[2]) for one in blocks}
    actors = sum(watched.cpu_seconds(start, end, pid) for pid in pids)
    return Run(
        seconds=watched.ended - watched.started,
        rtfx=audio / (committed - watched.started),
        steady_rtfx=steady_audio / (end - start),
        startup_seconds=min(_begun(one) for one in blocks) - watched.started,
        closing_seconds=watched.ended - committed,
        steady_busy_share=forward / (end - start),
        wait_share=result["wait_share"] or 0.0,
        padding_efficiency=result["padding_efficiency"] or 1.0,
        forward_seconds=sum(one["forward_seconds"] for one in blocks),
        blocks=sum(one["blocks"] for one in blocks),
        peak_gigabytes=watched.peak_bytes / 1e9,
        cpu_seconds_per_audio_hour=watched.cpu_seconds(start, end) / steady_audio * 3600,
        actor_cpu_seconds_per_audio_hour=actors / steady_audio * 3600,
        cpu_seconds=watched.cpu[-1][1],
        audio_seconds=audio,
        word_error_rate=word_errors.rate if word_errors else 0.0,
    )


def _begun(block: Mapping[str, float]) -> float:
    """Time at which a model took a block. `finished` is recorded after staging, some milliseconds after the model."""
    return block["finished"] - block["forward_seconds"]


def _overlap(block: Mapping[str, float], start: float, end: float) -> float:
    return max(0.0, min(block["finished"], end) - max(_begun(block), start))


def steady_window(blocks: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Return the times at which 10 % and 90 % of the audio were labelled, at a constant rate within a block."""
    begun = np.array([_begun(one) for one in blocks])
    finished = np.array([one["finished"] for one in blocks])
    audio = np.array([one["audio_seconds"] for one in blocks])
    times = np.unique(np.concatenate([begun, finished]))
    share = ((times[:, None] - begun) / (finished - begun)).clip(0, 1) @ audio / audio.sum()
    return float(np.interp(FROM_SHARE, share, times)), float(np.interp(TO_SHARE, share, times))


def _texts(sink: Path) -> dict[str, str]:
    import pyarrow.parquet as pq

    texts: dict[str, str] = {}
    for name in sorted(sink.glob("**/*.parquet")):
        table = pq.read_table(name, columns=["id", "pred_text"])
        texts |= dict(zip(table["id"].to_pylist(), table["pred_text"].to_pylist(), strict=True))
    return texts


def check_agreement(bare_texts: Mapping[str, str], run_texts: Mapping[str, str]) -> None:
    """Exit if the labels of the run differ from the bare model's in any letter."""
    different = [name for name in bare_texts if run_texts.get(name) != bare_texts[name]]
    if different or len(bare_texts) != len(run_texts):
        shown = "; ".join(f"{n}: {bare_texts[n]!r} bare, {run_texts.get(n)!r} run" for n in different[:3])
        raise SystemExit(f"{len(different)} of {len(bare_texts)} labels differ, so this run does not count: {shown}")


def compare(checkpoint: Path, shards: str, args: argparse.Namespace) -> dict[str, object]:
    """Find the best budget of S0, then run S0 and S4 in turn."""
    from benchmarks.bare import available

    libraries = available(args.libraries.split(","))
    tried = bare(checkpoint, shards, libraries, args.budgets, args.threads, args.device)
    best = min(tried, key=lambda one: one.cpu_seconds if args.by_cpu else one.seconds)
    reference = next(one for one in tried if one.library == "raysp")
    settings = [f"steps.1.pool.cpus={args.threads}", f"steps.1.device={args.device}"]
    settings += [f"steps.1.batch_seconds={args.batch_seconds:g}"] if args.batch_seconds else []
    bares: list[Bare] = []
    runs: list[Run] = []
    for _ in range(args.repeats):
        bares += bare(checkpoint, shards, [best.library], [best.budget_seconds], args.threads, args.device)
        with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
            run, texts = label(checkpoint, shards, Path(folder) / "labels", settings)
        check_agreement(reference.texts, texts)
        runs.append(run)
    return {
        "s0": [_without_texts(one) for one in bares],
        "s4": [asdict(one) for one in runs],
        "s0_tried": [_without_texts(one) for one in tried],
        "s0_agreement": {one.library: _agreement(one.texts, reference.texts) for one in tried},
    }


def _without_texts(one: Bare) -> dict[str, object]:
    return {name: value for name, value in asdict(one).items() if name != "texts"}


def _agreement(texts: Mapping[str, str], reference: Mapping[str, str]) -> float:
    return sum(texts[name] == reference[name] for name in reference) / len(reference)


def _spread(values: Sequence[float], digits: int) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def row(checkpoint: str, kind: str, found: Mapping[str, list[dict[str, float]]]) -> dict[str, object]:
    """Return the table row of one comparison."""
    s0 = [one["rtfx"] for one in found["s0"]]
    s4 = found["s4"]

    def of(name: str) -> list[float]:
        return [one[name] for one in s4]

    middle = statistics.median(s0)
    hours = s4[0]["audio_seconds"] / 3600
    return {
        "checkpoint": checkpoint,
        "corpus": kind,
        "S0": f"{found['s0'][0]['library']}, {found['s0'][0]['budget_seconds']:g} s",
        "S0 RTFx": _spread(s0, 1),
        "S4 steady RTFx": _spread(of("steady_rtfx"), 1),
        "S4/S0": f"{statistics.median(of('steady_rtfx')) / middle:.3f}",
        "S4 RTFx whole": _spread(of("rtfx"), 1),
        "busy": _spread(of("steady_busy_share"), 3),
        "waited": _spread(of("wait_share"), 3),
        "padding S0, S4": f"{found['s0'][0]['padding_efficiency']:.3f}, {s4[0]['padding_efficiency']:.3f}",
        "blocks": f"{s4[0]['blocks']:g}",
        "start s": _spread(of("startup_seconds"), 1),
        "peak GB": f"{max(of('peak_gigabytes')):.2f}",
        "CPU s/audio h, S0": f"{statistics.median(one['cpu_seconds'] for one in found['s0']) / hours:.0f}",
        "S4": _spread(of("cpu_seconds_per_audio_hour"), 0),
        "S4's actors": _spread(of("actor_cpu_seconds_per_audio_hour"), 0),
        "WER": f"{s4[0]['word_error_rate']:.3f}",
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    corpus.add_arguments(parser)
    parser.add_argument("--whole", action="store_true", help="whole jobs on all cores, start-up included")
    parser.add_argument("--systems", default=whole.SYSTEMS, help="with --whole, the systems to compare")
    parser.add_argument(
        "--corpora", help=f"several of {', '.join(corpus.KINDS)}; default: {CORPORA}; with --whole also long-tail"
    )
    parser.add_argument(
        "--checkpoints",
        help=f"small (bundled), base, base-layer, or folders; default: {CHECKPOINTS}; with --whole one, by default "
        f"a new one of {whole.MODEL}",
    )
    parser.add_argument("--minutes", type=float, help=f"minutes of each corpus; default: {MINUTES}")
    parser.add_argument("--shards", type=int, help=f"shards of each corpus; default: {SHARDS}")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument(
        "--pipeline-repeats", type=int, help="with --whole, number of repeats of S1 to S3; default: all"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the model, in S0 and S4")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="device of the model")
    parser.add_argument("--libraries", default="raysp,transformers", help="libraries for S0")
    parser.add_argument("--budgets", default="10,30,60", help="padded seconds per batch, from which S0 takes the best")
    parser.add_argument("--batch-seconds", type=float, help="batch_seconds of S4; default: chosen by raysp")
    parser.add_argument("--by-cpu", action="store_true", help="choose S0 by CPU time, for a shared machine")


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure every checkpoint with every corpus and print a table."""
    if args.whole:
        return whole.measure(args)
    args.budgets = [float(one) for one in str(args.budgets).split(",")]
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as work:
        for name in (args.checkpoints or CHECKPOINTS).split(","):
            checkpoint = folder_of(name, Path(work))
            size = "small" if name == "small" else "base"
            for kind in (args.corpora or CORPORA).split(","):
                minutes, shards = args.minutes or MINUTES[size], args.shards or SHARDS[size]
                folder = Path(work) / f"{kind}-{minutes:g}-{shards}"
                corpus.build(
                    folder,
                    kind,
                    minutes=minutes,
                    seed=args.seed,
                    shards=shards,
                    digits=args.digits,
                    sample_rate=args.sample_rate,
                )
                found[f"{name} {kind}"] = compare(checkpoint, f"{folder}/*.parquet", args)
                print(f"measured {name}, {kind}, {minutes:g} minutes", file=sys.stderr)
    rows = [row(*key.split(" "), one) for key, one in found.items()]  # type: ignore[arg-type]
    show(f"S0 (bare model) against S4 (raysp run), {args.threads} thread(s), median (min-max) of {args.repeats}", rows)
    return found


def folder_of(name: str, work: Path) -> Path:
    """Return the folder of a checkpoint; a known size is created if absent."""
    if name == "small":
        return checkpoints.BUNDLED
    if name in ("base", "base-layer"):
        folder = work / name
        return checkpoints.make(folder, front_end="layer" if name == "base-layer" else "group")
    return Path(name).absolute()


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
