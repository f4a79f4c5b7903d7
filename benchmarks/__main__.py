"""`python -m benchmarks`: throughput and engine, or one part given by name."""

import argparse
import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PARTS = {
    "actor": "actor",
    "alignment": "alignment",
    "commits": "commits",
    "corpus": "corpus",
    "checkpoint": "checkpoints",
    "bare": "bare",
    "beams": "beams",
    "memory": "memory",
    "models": "models",
    "outputs": "outputs",
    "parts": "parts",
    "conformer": "conformer",
    "datasets": "datasets",
    "decoding": "decoding",
    "throughput": "throughput",
    "engine": "engine",
    "estimates": "estimates",
    "generation": "generation",
    "gpu": "gpu.command",
    "storage": "storage",
    "isolation": "isolation",
    "joints": "joints",
    "killed": "killed",
    "languages": "languages",
    "long-row": "long_row",
    "planning": "planning",
    "quality": "quality",
    "scale": "scale",
    "startup": "startup",
    "training": "training",
    "words": "words",
}
"""Modules, which are imported when they are run: each needs other packages."""


def main(argv: list[str]) -> None:
    """Run one part, or all measurements."""
    if argv and argv[0] in PARTS:
        import_module(f"benchmarks.{PARTS[argv[0]]}").main(argv[1:])
        return
    from benchmarks import engine, throughput
    from benchmarks.tables import write_json

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
    lines = [f"  {name:{width}}  {_sentence(module)}" for name, module in PARTS.items()]
    return "\n".join(["one part: python -m benchmarks PART --help", *lines])


def _sentence(module: str) -> str:
    found = find_spec(f"benchmarks.{module}")
    source = Path(str(found and found.origin)).read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    main(sys.argv[1:])
