"""`python -m benchmarks`: throughput and engine; or one part by name."""

import argparse
import sys
from pathlib import Path

from benchmarks import (
    bare,
    checkpoints,
    commits,
    conformer,
    corpus,
    engine,
    generation,
    gpu,
    isolation,
    long_row,
    models,
    outputs,
    parts,
    planning,
    storage,
    throughput,
    words,
)
from benchmarks.tables import write_json

PARTS = {
    "commits": commits.main,
    "corpus": corpus.main,
    "checkpoint": checkpoints.main,
    "bare": bare.main,
    "models": models.main,
    "outputs": outputs.main,
    "parts": parts.main,
    "conformer": conformer.main,
    "throughput": throughput.main,
    "engine": engine.main,
    "generation": generation.main,
    "gpu": gpu.main,
    "storage": storage.main,
    "isolation": isolation.main,
    "long-row": long_row.main,
    "planning": planning.main,
    "words": words.main,
}


def main(argv: list[str]) -> None:
    """Run one part, or all measurements."""
    if argv and argv[0] in PARTS:
        PARTS[argv[0]](argv[1:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure raysp against the bare model, then what its engine costs. "
        f"One part alone: python -m benchmarks {{{','.join(PARTS)}}} --help",
    )
    throughput.add_arguments(parser.add_argument_group("throughput"))  # type: ignore[arg-type]
    engine.add_arguments(parser.add_argument_group("engine"))  # type: ignore[arg-type]
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(argv)
    found = {"throughput": throughput.measure(args), "engine": engine.measure_all(args)}
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main(sys.argv[1:])
