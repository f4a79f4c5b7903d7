"""`python -m benchmarks`: throughput and engine, or one part given by name."""

import argparse
import ast
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

QUESTIONS = {
    "throughput": "throughput",
    "bare": "bare",
    "throughput --whole": "whole",
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
"""Modules by name; each answers a question of docs/evidence/performance.md or comparison.md."""
INPUTS = {"corpus": "inputs.corpus", "checkpoint": "inputs.checkpoints"}
PARTS = {**QUESTIONS, **INPUTS}
"""All modules, which are imported when they are run: each needs other packages."""


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
        epilog="\n\n".join(
            [
                "one part: python -m benchmarks PART --help",
                *(_listed(title, parts) for title, parts in TITLES.items()),
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    throughput.add_arguments(parser.add_argument_group("throughput"))  # type: ignore[arg-type]
    engine.add_arguments(parser.add_argument_group("engine"))  # type: ignore[arg-type]
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = {"throughput": throughput.measure(args), "engine": engine.measure_all(args)}
    if args.json:
        write_json(args.json, found)


TITLES = {"questions:": QUESTIONS, "inputs:": INPUTS}


def _listed(title: str, parts: Mapping[str, str]) -> str:
    """Return a list of parts, each with its question or else the first sentence of its module."""
    width = max(map(len, PARTS))
    return "\n".join([title, *(f"  {name:{width}}  {_line(module)}" for name, module in parts.items())])


def _line(module: str) -> str:
    text = documentation(module)
    _, _, question = text.partition("Question of ")
    return " ".join(question.partition('":')[2].split()) or text.partition("\n")[0]


def documentation(module: str) -> str:
    """Return the docstring of a module of benchmarks, which is not imported."""
    file = Path(__file__).parent / f"{module.replace('.', '/')}.py"
    return ast.get_docstring(ast.parse(file.read_text())) or ""


if __name__ == "__main__":
    main(sys.argv[1:])
