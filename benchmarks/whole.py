"""How long does a whole job take, start-up included, beside other programs?

    python -m benchmarks whole
    python -m benchmarks whole --minutes 4 --repeats 1 --corpora test-like --systems S2,S4
    python -m benchmarks whole --minutes 20 --checkpoint base --systems S4,S1:bfloat16,S4:bfloat16

S0 is the bare model, S1 `transformers.pipeline`, S2 a loop over `transformers` with sorted windows, S3 Ray Data, and S4
`raysp run`; `benchmarks/programs` has them. Each runs in a separate process, in turn (S0 S1 S4 S0 S1 S4), on all cores,
from shards to files of labels, S0 without the files. S0 to S3 use one torch thread per core; S4 uses its default pool.
Two times of S0 are compared: its forward passes alone, with waveforms in memory, and its whole process, which also
imports, loads and decodes. A system whose name ends with a dtype has its model in it; the others have float32.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jiwer

from benchmarks.inputs import checkpoints, corpus
from benchmarks.programs import processes, systems
from benchmarks.tables import show, spread
from benchmarks.timing import in_turn
from raysp.devices import num_cpus

MINUTES = (4.0, 20.0)
BUDGET_SECONDS = 10
"""Padded seconds of a batch of S0."""


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


def job(name: str, checkpoint: Path, shards: str) -> Whole:
    """Run a job of a system, such as "S4" or "S4:bfloat16"."""
    system, _, dtype = name.partition(":")
    dtype = dtype or "float32"
    if system == "S0":
        [found], watched = systems.bare(checkpoint, shards, budgets=BUDGET_SECONDS, threads=num_cpus(), dtype=dtype)
        return _whole(name, watched, found["seconds"], found["texts"])
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        labels = Path(folder) / "labels"
        if system != "S4":
            watched = systems.watch(systems.program_command(system, checkpoint, shards, labels, dtype))
            return _whole(name, watched, None, systems.program_texts(labels))
        watched = systems.watch(systems.run_command(checkpoint, shards, labels, [f"steps.1.dtype={dtype}"]))
        model_seconds = sum(piece["counts"]["busy_seconds"] for piece in systems.pieces(labels))
        return _whole(name, watched, model_seconds, systems.column(f"{labels}/*.parquet", "pred_text"))


def _whole(name: str, watched: processes.Watched, model: float | None, texts: Mapping[str, str]) -> Whole:
    seconds = watched.ended - watched.started
    return Whole(name, seconds, model, texts, watched.cpu[-1][1], watched.peak_bytes / 1e9)


def compare(checkpoint: Path, shards: str, args: argparse.Namespace) -> dict[str, list[Whole]]:
    """Run the systems in turn, the programs S1 to S3 in the first repeats only if they have fewer."""
    jobs = {name: partial(job, name, checkpoint, shards) for name in args.systems.split(",")}
    few = args.repeats if args.pipeline_repeats is None else args.pipeline_repeats
    found = in_turn(jobs, few)
    more = in_turn({name: run for name, run in jobs.items() if name[:2] in ("S0", "S4")}, args.repeats - few)
    return {name: runs + more.get(name, []) for name, runs in found.items()}


def row(kind: str, minutes: float, found: Mapping[str, Sequence[Whole]]) -> dict[str, object]:
    """Return the table row of a corpus: medians, and medians of the ratios within a repeat."""
    model, labelling = ([one.model_seconds or 0.0 for one in found.get(name, ())] for name in ("S0", "S4"))
    whole = {name: [one.seconds for one in runs] for name, runs in found.items()}
    cells: dict[str, object] = {"corpus": kind, "minutes": f"{minutes:g}"}
    if model:
        cells["S0 model s"] = spread(model)
    cells |= {f"{name} whole s": spread(seconds) for name, seconds in whole.items()}
    if labelling:
        cells["S4 model s"] = spread(labelling)
    if model and labelling:
        cells["S0 model / S4"] = _ratio(model, whole["S4"])
    if "S4" in whole:
        cells |= {f"{name} whole / S4": _ratio(whole[name], whole["S4"]) for name in whole if name != "S4"}
    return cells


def system_rows(
    kind: str, found: Mapping[str, Sequence[Whole]], references: Mapping[str, str]
) -> list[dict[str, object]]:
    """Return a table row for each system: what a job costs, and how many texts are those of S0."""
    alone = found["S0"][0].texts if "S0" in found else None
    return [
        {
            "corpus": kind,
            "system": name,
            "CPU s": spread([one.cpu_seconds for one in runs]),
            "peak GB": f"{max(one.peak_gigabytes for one in runs):.2f}",
            "rows": len(runs[0].texts),
            "texts as S0": "" if alone is None else f"{_agreement(runs[0].texts, alone):.3f}",
            "WER": f"{_word_error_rate(runs[0].texts, references):.2%}",
        }
        for name, runs in found.items()
    ]


def _agreement(texts: Mapping[str, str], alone: Mapping[str, str]) -> float:
    return sum(texts.get(name) == text for name, text in alone.items()) / len(alone)


def _word_error_rate(texts: Mapping[str, str], references: Mapping[str, str]) -> float:
    return jiwer.wer([text.upper() for text in references.values()], [texts.get(name, "") for name in references])


def _ratio(seconds: Sequence[float], seconds_of_s4: Sequence[float]) -> str:
    # S1 to S3 may have fewer repeats, which are the first ones.
    return spread([theirs / ours for theirs, ours in zip(seconds, seconds_of_s4, strict=False)], 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    corpus.add_digits(parser)
    parser.add_argument("--systems", default="S0,S1,S2,S3,S4", help="systems to compare (%(default)s)")
    parser.add_argument(
        "--corpora",
        default="test-like,train-like,long-tail",
        help=f"several of {', '.join(corpus.KINDS)} (%(default)s)",
    )
    parser.add_argument("--checkpoint", default="middle", help=f"{checkpoints.NAMES} (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, help=f"minutes of each corpus; default: {MINUTES}, one after the other"
    )
    parser.add_argument("--shards", type=int, default=2, help="shards of each corpus (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats (%(default)s)")
    parser.add_argument("--pipeline-repeats", type=int, help="number of repeats of S1 to S3; default: all")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure every corpus in both lengths, and print two tables."""
    found: dict[str, object] = {}
    times, costs = [], []
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as work:
        checkpoint = checkpoints.named(args.checkpoint, Path(work))
        for minutes in [args.minutes] if args.minutes else MINUTES:
            for kind in args.corpora.split(","):
                folder = Path(work) / f"{kind}-{minutes:g}"
                corpus.build(folder, kind, minutes=minutes, shards=args.shards, **corpus.digits_of(args))
                shards, case = f"{folder}/*.parquet", f"{kind} {minutes:g}"
                jobs = compare(checkpoint, shards, args)
                found[case] = {name: [{**asdict(one), "texts": None} for one in runs] for name, runs in jobs.items()}
                times.append(row(kind, minutes, jobs))
                costs += system_rows(case, jobs, systems.column(shards, "text"))
                print(f"measured {kind}, {minutes:g} minutes", file=sys.stderr)
    show(f"Whole jobs on {num_cpus()} cores: {args.checkpoint}; median (min-max) of {args.repeats}", times)
    show("What they cost, and what they wrote", costs)
    return found
