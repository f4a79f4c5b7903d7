"""`python -m benchmarks`: throughput and engine, or one part given by name."""

import argparse
import sys
from pathlib import Path

from benchmarks import (
    actor,
    alignment,
    bare,
    beams,
    checkpoints,
    commits,
    conformer,
    corpus,
    datasets,
    decoding,
    engine,
    estimates,
    generation,
    gpu,
    isolation,
    joints,
    killed,
    languages,
    long_row,
    memory,
    models,
    outputs,
    parts,
    planning,
    quality,
    scale,
    startup,
    storage,
    throughput,
    training,
    words,
)
from benchmarks.tables import write_json

PARTS = {
    "actor": actor.main,
    "alignment": alignment.main,
    "commits": commits.main,
    "corpus": corpus.main,
    "checkpoint": checkpoints.main,
    "bare": bare.main,
    "beams": beams.main,
    "memory": memory.main,
    "models": models.main,
    "outputs": outputs.main,
    "parts": parts.main,
    "conformer": conformer.main,
    "datasets": datasets.main,
    "decoding": decoding.main,
    "throughput": throughput.main,
    "engine": engine.main,
    "estimates": estimates.main,
    "generation": generation.main,
    "gpu": gpu.main,
    "storage": storage.main,
    "isolation": isolation.main,
    "joints": joints.main,
    "killed": killed.main,
    "languages": languages.main,
    "long-row": long_row.main,
    "planning": planning.main,
    "quality": quality.main,
    "scale": scale.main,
    "startup": startup.main,
    "training": training.main,
    "words": words.main,
}


def main(argv: list[str]) -> None:
    """Run one part, or all measurements."""
    if argv and argv[0] in PARTS:
        PARTS[argv[0]](argv[1:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare raysp with the bare model, then measure the overhead of the engine.",
        epilog=_parts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    throughput.add_arguments(parser.add_argument_group("throughput"))  # type: ignore[arg-type]
    engine.add_arguments(parser.add_argument_group("engine"))  # type: ignore[arg-type]
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = {"throughput": throughput.measure(args), "engine": engine.measure_all(args)}
    if args.json:
        write_json(args.json, found)


def _parts() -> str:
    """Return a text that lists the parts, each with the first sentence of its module."""
    width = max(map(len, PARTS))
    lines = [
        f"  {name:{width}}  {(sys.modules[part.__module__].__doc__ or '').partition(chr(10))[0]}"
        for name, part in PARTS.items()
    ]
    return "\n".join(["one part: python -m benchmarks PART --help", *lines])


if __name__ == "__main__":
    main(sys.argv[1:])
