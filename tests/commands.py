"""Results and help of commands, and a pipeline file for them."""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests import kit
from tests.corpora import CHECKPOINT

RECIPE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({source!r}),
    steps=[raysp.Decode(), raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()])],
    sink=raysp.Parquet({sink!r}),
)
"""


def write_recipe(folder: Path, text: str = RECIPE, **changes: object) -> Path:
    values = {"source": f"{folder}/in/*.parquet", "sink": f"{folder}/out", "checkpoint": str(CHECKPOINT), **changes}
    path = folder / "recipe_for_the_cli.py"
    path.write_text(text.format(**values))
    return path


TOGETHER = """
import contextlib, io, json, shlex, sys
from raysp.cli import main

found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            exec(words, {}) if "\\n" in words else main(shlex.split(words))
            sys.exit()
        except SystemExit as stop:
            found.append([int(stop.code or 0), out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


def run_together(commands: Sequence[str], folder: Path, **variables: str) -> list[kit.Ran]:
    """Run commands of raysp, and programs of several lines, in one process of their own with environment variables."""
    line = [sys.executable, "-c", TOGETHER, json.dumps(commands)]
    done = subprocess.run(line, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [kit.Ran(*one) for one in json.loads(done.stdout)]


class Option(NamedTuple):
    """An option of a verb, as its help shows it."""

    value: str
    """Name of its value; empty if it has none."""
    words: str


class Help(NamedTuple):
    """Arguments and options of a verb, as its help shows them."""

    least: int
    """Least number of arguments."""
    most: float
    options: dict[str, Option]


@functools.cache
def verbs() -> dict[str, list[str]]:
    """Return the verbs of `raysp --help` by the example of their group."""
    groups = re.findall(
        r"^\S.*, as in `(.*)`:\n((?:  .*\n)+)", kit.run("--help", COLUMNS="80").out + "\n", re.MULTILINE
    )
    return {example: [line.split()[0] for line in lines.splitlines()] for example, lines in groups}


@functools.cache
def help_of(verb: str) -> Help:
    """Return what the help of a verb says."""
    text = kit.run([verb, "--help"], COLUMNS="80").out
    usage = re.search(r"^Usage: raysp \S+ \[OPTIONS\](.*)", text)[1].split()
    options = {}
    lines = re.split(r"\n  (?=-)", text.partition("\nOptions:")[2])[1:]
    for line in lines:
        shown = re.match(r"(?:-\w, )?(--[\w-]+)(?: (\S+))?(?:  +|\n +)", line)
        options[shown[1]] = Option(shown[2] or "", " ".join(line[shown.end() :].split()))
    many = any("..." in one for one in usage)
    return Help(sum(one[0] != "[" for one in usage), float("inf") if many else len(usage), options)


def check_understood(verb: str, *words: str) -> None:
    """Check that a verb has the options of a command, each with a value where it needs one, and the arguments."""
    ran = kit.run([verb, *words, "--help"])
    assert (ran.code, ran.out[:6]) == (0, "Usage:"), ran.err
    found, left, arguments = help_of(verb), [*words], 0
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            arguments += 1
            continue
        name, _, given = word.partition("=")
        value = found.options["--verbose" if name == "-v" else name].value
        if value and not given:
            left.pop(0)
    assert found.least <= arguments <= found.most, (verb, words)
