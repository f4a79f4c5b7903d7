"""Whole jobs, start-up included, on all cores: the bare model (S0), other programs (S1 to S3) and `raysp run` (S4).

    python -m benchmarks throughput --whole
    python -m benchmarks throughput --whole --minutes 4 --repeats 1 --corpora test-like --systems S2,S4
    python -m benchmarks throughput --whole --minutes 20 --checkpoints base --systems S4,S1:bfloat16,S4:bfloat16

S1 is `transformers.pipeline`, S2 a loop over `transformers` with sorted windows, S3 Ray Data; `benchmarks/programs` has
them. Each system runs in a separate process, in turn (S0 S1 S4 S0 S1 S4), from shards to files of labels, S0 without
the files. S0 to S3 use one torch thread per core; S4 uses its default pool. Two times of S0 are compared: its forward
passes alone, with waveforms in memory, and its whole process, which also imports, loads and decodes. A system whose
name ends with a dtype has its model in it; the others have float32.

Question of docs/evidence/comparison.md, "Speed":
how long does a whole job take, start-up included, beside other programs?
"""

import argparse
import glob
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.inputs import checkpoints, corpus
from benchmarks.programs import processes
from benchmarks.tables import show
from raysp.devices import num_cpus

CORPORA = "test-like,train-like,long-tail"
MINUTES = (4.0, 20.0)
SHARDS = 2
LAYERS, HIDDEN_SIZE = 8, 512
MODEL = f"{LAYERS} layers, {HIDDEN_SIZE} wide"
PROGRAMS = {"S1": "transformers_pipeline", "S2": "sorted_loop", "S3": "ray_data"}
SYSTEMS = "S0,S1,S2,S3,S4"
REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True)
class Whole:
    """One job of one system."""

    system: str
    seconds: float
    """Of the process, from its start to its end."""
    model_seconds: float | None
    """Of S0's forward passes alone, or of S4's labelling of its blocks; not known of the others."""
    texts: Mapping[str, str]
    cpu_seconds: float = 0.0
    """Of the process tree."""
    peak_gigabytes: float = 0.0
    """Of the process tree."""


def bare(checkpoint: Path, shards: str, threads: int, budget: float, system: str = "S0") -> Whole:
    """Run S0."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.bare", str(checkpoint), shards, "--texts", "--json", file.name]
        command += ["--libraries", "raysp", "--budgets", f"{budget:g}", "--threads", str(threads)]
        watched = _watched([*command, "--dtype", dtype_of(system)])
        found = json.loads(Path(file.name).read_text())
    return _whole(system, watched, found["measured"][0]["median"], found["texts"]["raysp"])


def dtype_of(system: str) -> str:
    """Return the dtype of the model of a system, such as "S4:bfloat16"."""
    return system.partition(":")[2] or "float32"


def program(system: str, checkpoint: Path, shards: str) -> Whole:
    """Run one of `PROGRAMS`."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        module = f"benchmarks.programs.{PROGRAMS[system[:2]]}"
        watched = _watched([sys.executable, "-m", module, str(checkpoint), shards, folder, dtype_of(system)])
        return _whole(system, watched, None, program_texts(Path(folder)))


def program_texts(folder: Path) -> dict[str, str]:
    """Read the labels of a program by id; the windows of a recording, where they are rows, are joined by spaces."""
    import pyarrow.parquet as pq

    parts: dict[str, dict[int, str]] = {}
    for name in sorted(folder.glob("*.parquet")):
        for row in pq.read_table(name).to_pylist():
            parts.setdefault(row["id"], {})[row.get("number", 0)] = row["text"]
    return {name: " ".join(filter(None, (of[i] for i in sorted(of)))) for name, of in parts.items()}


def run(checkpoint: Path, shards: str, system: str = "S4") -> Whole:
    """Run S4 with its default pool."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        watched = _watched(run_command(checkpoint, shards, Path(folder) / "labels", dtype_of(system)))
        texts = columns(f"{folder}/labels/*.parquet", "pred_text")
        pieces = [one["counts"] for one in receipts(Path(folder) / "labels") if one["kind"] == "piece"]
        model = sum(one["busy_seconds"] for one in pieces)
    return _whole(system, watched, model, texts)


def run_command(checkpoint: Path, shards: str, sink: Path, dtype: str = "float32") -> list[str]:
    """Return the command of S4."""
    recipe = REPOSITORY / "pipelines" / "label_digits.py"
    changes = [f"source.url={shards}", f"steps.1.checkpoint={checkpoint}", f"sink.url={sink}"]
    changes.append(f"steps.1.dtype={dtype}")
    return [
        *[sys.executable, "-m", "raysp", "run", str(recipe), "--json"],
        *[part for change in changes for part in ("--set", change)],
    ]


def environment() -> dict[str, str]:
    """Return the environment of a job: without OMP_NUM_THREADS, a limit that no user of a whole machine has."""
    return {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "OMP_NUM_THREADS")}


def columns(shards: str, name: str) -> dict[str, str]:
    """Read a column of shards, by id."""
    import pyarrow.parquet as pq

    found: dict[str, str] = {}
    for file in sorted(glob.glob(shards)):
        table = pq.read_table(file, columns=["id", name])
        found |= dict(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))
    return found


def receipts(sink: Path) -> list[dict[str, Any]]:
    """Read a sink's receipts."""
    files = sorted((sink / ".raysp" / "log").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _watched(command: Sequence[str]) -> processes.Watched:
    watched = processes.run(command, environment(), folder=REPOSITORY)
    if watched.code:
        said = watched.stderr[-2000:]
        raise SystemExit(f"{' '.join(command[:6])} ... ended with exit code {watched.code}: {said}")
    return watched


def _whole(system: str, watched: processes.Watched, model: float | None, texts: Mapping[str, str]) -> Whole:
    seconds = watched.ended - watched.started
    return Whole(system, seconds, model, texts, watched.cpu[-1][1], watched.peak_bytes / 1e9)


def compare(checkpoint: Path, shards: str, args: argparse.Namespace) -> list[Whole]:
    """Run the systems in turn."""
    threads, budget = num_cpus(), float(str(args.budgets).split(",")[0])
    systems = [one for one in args.systems.split(",") if one[:2] not in PROGRAMS or "transformers" in args.libraries]
    found: list[Whole] = []
    others = args.repeats if args.pipeline_repeats is None else args.pipeline_repeats
    for repeat in range(args.repeats):
        for system in systems:
            if system.startswith("S0"):
                found.append(bare(checkpoint, shards, threads, budget, system))
            elif system.startswith("S4"):
                found.append(run(checkpoint, shards, system))
            elif repeat < others:
                found.append(program(system, checkpoint, shards))
    return found


def row(kind: str, minutes: float, found: Sequence[Whole]) -> dict[str, object]:
    """Return the table row of a corpus: medians, and medians of the ratios within a repeat."""
    of = _by_system(found)
    model, labelling = ([one.model_seconds or 0.0 for one in of.get(name, ())] for name in ("S0", "S4"))
    whole = {name: [one.seconds for one in runs] for name, runs in of.items()}
    cells: dict[str, object] = {"corpus": kind, "minutes": f"{minutes:g}"}
    if model:
        cells["S0 model s"] = _spread(model)
    cells |= {f"{name} whole s": _spread(seconds) for name, seconds in whole.items()}
    if labelling:
        cells["S4 model s"] = _spread(labelling)
    if model and labelling:
        cells["S0 model / S4"] = _ratio(model, whole["S4"])
    if "S4" in whole:
        cells |= {f"{name} whole / S4": _ratio(whole[name], whole["S4"]) for name in whole if name != "S4"}
    return cells


def system_rows(kind: str, found: Sequence[Whole], references: Mapping[str, str]) -> list[dict[str, object]]:
    """Return a table row for each system: what a job costs, and how many texts are those of S0."""
    of = _by_system(found)
    alone = of["S0"][0].texts if "S0" in of else None
    return [
        {
            "corpus": kind,
            "system": name,
            "CPU s": _spread([one.cpu_seconds for one in runs]),
            "peak GB": f"{max(one.peak_gigabytes for one in runs):.2f}",
            "rows": len(runs[0].texts),
            "texts as S0": "" if alone is None else f"{_agreement(runs[0].texts, alone):.3f}",
            "WER": f"{_word_error_rate(runs[0].texts, references):.2%}",
        }
        for name, runs in of.items()
    ]


def _by_system(found: Sequence[Whole]) -> dict[str, list[Whole]]:
    return {name: [one for one in found if one.system == name] for name in sorted({one.system for one in found})}


def _agreement(texts: Mapping[str, str], alone: Mapping[str, str]) -> float:
    return sum(texts.get(name) == text for name, text in alone.items()) / len(alone)


def _word_error_rate(texts: Mapping[str, str], references: Mapping[str, str]) -> float:
    import jiwer

    said = [(text.upper(), texts.get(name, "")) for name, text in references.items()]
    return jiwer.wer([text for text, _ in said], [text for _, text in said])


def _ratio(ones: Sequence[float], others: Sequence[float]) -> str:
    # S1 to S3 may have fewer repeats, which are the first ones.
    return _spread([one / other for one, other in zip(ones, others, strict=False)], 2)


def _spread(values: Sequence[float], digits: int = 1) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure every corpus in both lengths, and print two tables."""
    found: dict[str, list[Whole]] = {}
    times, costs = [], []
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as work:
        checkpoint = _checkpoint(args.checkpoints, Path(work))
        for minutes in [args.minutes] if args.minutes else MINUTES:
            for kind in (args.corpora or CORPORA).split(","):
                folder = Path(work) / f"{kind}-{minutes:g}"
                shards = args.shards or SHARDS
                corpus.build(folder, kind, minutes=minutes, seed=args.seed, shards=shards, digits=args.digits)
                one = compare(checkpoint, f"{folder}/*.parquet", args)
                found[f"{kind} {minutes:g}"] = one
                times.append(row(kind, minutes, one))
                costs += system_rows(f"{kind} {minutes:g}", one, columns(f"{folder}/*.parquet", "text"))
                print(f"measured {kind}, {minutes:g} minutes", file=sys.stderr)
    show(f"Whole jobs on {num_cpus()} cores: {args.checkpoints or MODEL}; median (min-max) of {args.repeats}", times)
    show("What they cost, and what they wrote", costs)
    return {name: [{**asdict(one), "texts": None} for one in ones] for name, ones in found.items()}


def _checkpoint(name: str | None, work: Path) -> Path:
    if name is None:
        return checkpoints.make(work / "model", layers=LAYERS, hidden_size=HIDDEN_SIZE)
    if name == "base":
        return checkpoints.make(work / "model")
    return checkpoints.BUNDLED if name == "small" else Path(name).absolute()
