"""`python -m benchmarks NAME`: one measurement, or one of the inputs that measurements make."""

import argparse
import ast
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from benchmarks.tables import write_json

MEASUREMENTS = {
    "throughput": "throughput",
    "whole": "whole",
    "killed": "killed",
    "engine": "engine",
    "scale": "scale",
    "storage": "storage",
    "decoding": "decoding",
    "long-row": "long_row",
    "models": "models",
    "recognisers": "recognisers",
    "training": "training",
    "gpu": "gpu",
}
INPUTS = {"corpus": "inputs.corpus", "checkpoint": "inputs.checkpoints"}
PARTS = {**MEASUREMENTS, **INPUTS}
"""Modules by name, each with `add_arguments` and `run`. One is imported when it is run: each needs other packages."""


def main(argv: list[str]) -> None:
    """Run a part: print its tables, and write its figures if asked to."""
    name = argv[0] if argv else ""
    if name not in PARTS:
        print(listing())
        raise SystemExit(0 if name in ("", "-h", "--help") else f"\npython -m benchmarks {name}: no such part")
    module = import_module(f"benchmarks.{PARTS[name]}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv[1:])
    figures = module.run(args)
    if args.json:
        write_json(args.json, figures)


def listing() -> str:
    """Return the parts with what they do."""
    parts = "\n\n".join([_listed("measurements:", MEASUREMENTS), _listed("inputs:", INPUTS)])
    return f"usage: python -m benchmarks NAME [--help] [--json FILE]\n\n{parts}"


def _listed(title: str, parts: Mapping[str, str]) -> str:
    width = max(map(len, PARTS))
    return "\n".join([title, *(f"  {name:{width}}  {summary(module)}" for name, module in parts.items())])


def summary(module: str) -> str:
    """Return the first line of the docstring of a module, which is not imported."""
    file = Path(__file__).parent / f"{module.replace('.', '/')}.py"
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


if __name__ == "__main__":
    main(sys.argv[1:])
