"""Whole jobs, start-up included, on all cores: the bare model (S0), transformers.pipeline (S1) and `raysp run` (S4).

    python -m benchmarks throughput --whole
    python -m benchmarks throughput --whole --minutes 4 --repeats 1 --corpora test-like

Each system runs in a separate process, in turn (S0 S1 S4 S0 S1 S4). S0 and S1 use one torch thread per core; S4 uses
its default pool. Two times of S0 are compared: its forward passes alone, with waveforms in memory, and its whole
process, which also imports, loads and decodes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import checkpoints, corpus
from benchmarks.tables import show
from raysp.planning.machine import num_cpus

CORPORA = "test-like,train-like,long-tail"
MINUTES = (4.0, 20.0)
SHARDS = 2
LAYERS, HIDDEN_SIZE = 8, 512
PIPELINE_BATCH = 8
REPOSITORY = Path(__file__).parent.parent

S1_CODE = """
import glob, json, sys
import pyarrow.parquet as pq, torch, transformers
from raysp.audio import decode
checkpoint, shards, threads, batch = sys.argv[1:]
torch.set_num_threads(int(threads))
transformers.logging.set_verbosity_error()
label = transformers.pipeline("automatic-speech-recognition", model=checkpoint, device="cpu")
rate = label.feature_extractor.sampling_rate
rows = [row for name in sorted(glob.glob(shards)) for row in pq.read_table(name, columns=["id", "audio"]).to_pylist()]
waves = ({"raw": decode(row["audio"]["bytes"], sample_rate=rate), "sampling_rate": rate} for row in rows)
with torch.inference_mode():
    texts = [found["text"] for found in label(waves, batch_size=int(batch))]
print(json.dumps(dict(zip([row["id"] for row in rows], texts, strict=True))))
"""


@dataclass(frozen=True)
class Whole:
    """One job of one system."""

    system: str
    seconds: float
    """Of the process, from its start to its end."""
    model_seconds: float | None
    """Of S0's forward passes alone, or of S4's labelling of its blocks; not known of S1."""
    texts: Mapping[str, str]


def bare(checkpoint: Path, shards: str, threads: int, budget: float) -> Whole:
    """Run S0."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.bare", str(checkpoint), shards, "--texts", "--json", file.name]
        command += ["--libraries", "raysp", "--budgets", f"{budget:g}", "--threads", str(threads)]
        seconds, _ = _timed(command)
        found = json.loads(Path(file.name).read_text())
    return Whole("S0", seconds, found["measured"][0]["median"], found["texts"]["raysp"])


def pipeline(checkpoint: Path, shards: str, threads: int) -> Whole:
    """Run S1 in the order of the corpus."""
    arguments = [str(checkpoint), shards, str(threads), str(PIPELINE_BATCH)]
    seconds, said = _timed([sys.executable, "-c", S1_CODE, *arguments])
    return Whole("S1", seconds, None, json.loads(said.splitlines()[-1]))


def run(checkpoint: Path, shards: str) -> Whole:
    """Run S4 with its default pool."""
    import pyarrow.parquet as pq

    recipe = REPOSITORY / "pipelines" / "label_digits.py"
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        changes = [f"source.url={shards}", f"steps.1.checkpoint={checkpoint}", f"sink.url={folder}/labels"]
        command = [sys.executable, "-m", "raysp", "run", str(recipe), "--json"]
        seconds, _ = _timed(command + [part for change in changes for part in ("--set", change)])
        texts: dict[str, str] = {}
        for name in sorted(Path(folder).glob("labels/*.parquet")):
            table = pq.read_table(name, columns=["id", "pred_text"])
            texts |= dict(zip(table["id"].to_pylist(), table["pred_text"].to_pylist(), strict=True))
        model = sum(one["forward_seconds"] for one in receipts(Path(folder) / "labels") if one["kind"] == "block")
    return Whole("S4", seconds, model, texts)


def receipts(sink: Path) -> list[dict[str, float]]:
    """Read a sink's receipts."""
    files = sorted((sink / ".raysp" / "receipts").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _timed(command: Sequence[str]) -> tuple[float, str]:
    # OMP_NUM_THREADS would be a limit that no user of a whole machine has.
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "OMP_NUM_THREADS")}
    started = time.perf_counter()
    done = subprocess.run(command, env=env, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} ... ended with exit code {done.returncode}")
    return time.perf_counter() - started, done.stdout


def compare(checkpoint: Path, shards: str, args: argparse.Namespace) -> list[Whole]:
    """Run the systems in turn."""
    threads, budget = num_cpus(), float(str(args.budgets).split(",")[0])
    found: list[Whole] = []
    pipelines = args.repeats if args.pipeline_repeats is None else args.pipeline_repeats
    for repeat in range(args.repeats):
        found.append(bare(checkpoint, shards, threads, budget))
        if "transformers" in args.libraries and repeat < pipelines:
            found.append(pipeline(checkpoint, shards, threads))
        found.append(run(checkpoint, shards))
    return found


def row(kind: str, minutes: float, found: Sequence[Whole]) -> dict[str, object]:
    """Return the table row of a corpus: medians, and medians of the ratios within a repeat."""
    of = {name: [one for one in found if one.system == name] for name in ("S0", "S1", "S4")}
    model, labelling = ([one.model_seconds or 0.0 for one in of[name]] for name in ("S0", "S4"))
    whole = {name: [one.seconds for one in runs] for name, runs in of.items() if runs}
    texts, bare_texts = of["S4"][0].texts, of["S0"][0].texts
    agree = sum(texts.get(name) == text for name, text in bare_texts.items()) / len(bare_texts)
    cells: dict[str, object] = {"corpus": kind, "minutes": f"{minutes:g}", "S0 model s": _spread(model)}
    cells |= {f"{name} whole s": _spread(seconds) for name, seconds in whole.items()}
    cells["S4 model s"] = _spread(labelling)
    cells["S0 model / S4"] = _ratio(model, whole["S4"])
    cells |= {f"{name} whole / S4": _ratio(whole[name], whole["S4"]) for name in ("S0", "S1") if name in whole}
    return {**cells, "texts as S0": f"{agree:.3f}"}


def _ratio(ones: Sequence[float], others: Sequence[float]) -> str:
    # S1 may have fewer repeats, which are the first ones.
    return _spread([one / other for one, other in zip(ones, others, strict=False)], 2)


def _spread(values: Sequence[float], digits: int = 1) -> str:
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) < 2 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure every corpus in both lengths, and print a table."""
    found: dict[str, list[Whole]] = {}
    rows = []
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as work:
        checkpoint = checkpoints.make(Path(work) / "model", layers=LAYERS, hidden_size=HIDDEN_SIZE)
        for minutes in [args.minutes] if args.minutes else MINUTES:
            for kind in (args.corpora or CORPORA).split(","):
                folder = Path(work) / f"{kind}-{minutes:g}"
                shards = args.shards or SHARDS
                corpus.build(folder, kind, minutes=minutes, seed=args.seed, shards=shards, digits=args.digits)
                one = compare(checkpoint, f"{folder}/*.parquet", args)
                found[f"{kind} {minutes:g}"] = one
                rows.append(row(kind, minutes, one))
                print(f"measured {kind}, {minutes:g} minutes", file=sys.stderr)
    title = f"Whole jobs on {num_cpus()} cores: {LAYERS} layers, {HIDDEN_SIZE} wide; median (min-max) of {args.repeats}"
    show(title, rows)
    return {name: [{**asdict(one), "texts": None} for one in ones] for name, ones in found.items()}
