"""Sizes of the house: `python -m tests.house [--traces]`.

Prints lines of raysp by room, lines of the tests by layer, test files that import the inside of raysp, patches of it,
words of the documentation, and with `--traces` the functions of raysp that a batch, the start of a run and a training
call.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.house.sizes import CHECKOUT, inside_imports, layers, patches, rooms, words

TRACES = {
    "batch": "CTC batch of three rows, decoded block to columns",
    "start": "`raysp run` of the demo, before its first piece",
    "training": "training of two steps on the demo, recipe to checkpoint",
}

CEILINGS = {"batch": {"functions": 120, "files": 20}, "training": {"functions": 895}}
"""Most functions and files of traces."""

MOST_LINES = {"by promise": 12_500, "golden": 1_000, "drivers": 5_000}
"""Most lines of layers of the tests."""

MOST_OF_TESTS = {"test files that import the inside": 80, "patches": 30}
"""Most of some figures of the tests."""


def traced(name: str) -> dict[str, int]:
    """Return the figures of a trace, made in a fresh process."""
    command = [sys.executable, "-m", "tests.house.traces", name]
    environment = {**os.environ, "RAYSP_ENGINE": "here"}
    ran = subprocess.run(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return aligned lines, the first column to the left."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    first = max(len(line[0]) for line in lines)
    return "\n".join(f"{line[0]:<{first}}" + "".join(f"{cell:>11}" for cell in line[1:]) for line in lines)


def figures_of_tests() -> dict[str, int]:
    """Return the number of test files, of those that import the inside, and of patches."""
    files = [path.read_text() for path in (CHECKOUT / "tests").rglob("test_*.py")]
    every = [patches(path.read_text()) for path in (CHECKOUT / "tests").rglob("*.py")]
    return {
        "test files": len(files),
        "test files that import the inside": sum(bool(inside_imports(text, CHECKOUT / "raysp")) for text in files),
        "patches": sum(number for number, _ in every),
        "patches of raysp": sum(number for _, number in every),
    }


def report() -> Iterator[str]:
    """Yield the tables, without the traces."""
    yield table(
        ("room", "files", "lines", "code"), [(room, *figures) for room, figures in rooms(CHECKOUT / "raysp").items()]
    )
    yield table(
        ("layer of tests", "files", "lines"), [(name, *figures) for name, figures in layers(CHECKOUT / "tests").items()]
    )
    figures = list(figures_of_tests().items())
    counted = words(CHECKOUT)
    figures += [(f"words of {folder}/", number) for folder, number in counted.items()]
    yield table(("figure", ""), [*figures, ("words of documentation", sum(counted.values()))])


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--traces", action="store_true", help="trace a batch, the start of a run and a training as well"
    )
    tables = report()
    if parser.parse_args().traces:
        rows = [(words, *traced(name).values()) for name, words in TRACES.items()]
        tables = itertools.chain(tables, [table(("trace", "functions", "files", "modules"), rows)])
    sys.stdout.write("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
