"""The tours of docs/tour: their commands are understood, and what they show fits a screen and hides no failure."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from raysp.cli.entry import app

TOURS = sorted((Path(__file__).parents[1] / "docs" / "tour").glob("*.md"))
SHOWN = [
    (tour.stem, block.splitlines())
    for tour in TOURS
    for block in re.findall(r"```console\n(.*?)\n```", tour.read_text(), re.DOTALL)
]


def test_there_are_tours():
    assert len(SHOWN) >= 3 * len(TOURS) > 0


@pytest.mark.parametrize(("tour", "lines"), SHOWN, ids=lambda one: one if isinstance(one, str) else one[0])
def test_a_command_is_understood_and_prints_a_screen_at_most(tour, lines):
    command, *printed = lines
    assert command.startswith("$ ")
    assert len(printed) <= 40
    words = shlex.split(command[2:].partition(";")[0])
    if words[0] == "raysp":
        group = typer.main.get_command(app)
        verb = group.commands[words[1]]
        verb.make_context(words[1], words[2:], parent=None)


@pytest.mark.parametrize(("tour", "lines"), SHOWN, ids=lambda one: one if isinstance(one, str) else one[0])
def test_no_command_that_labels_nothing_ends_with_0(tour, lines):
    text = "\n".join(lines)
    has_failed = re.search(
        r"none of [\d,]+ rows? was labelled|^raysp: .*(no such|refused|differs)|Traceback", text, re.M
    )
    assert bool(re.search(r"^\[exit code \d+\]$", text, re.M)) >= bool(has_failed)
    assert "Traceback" not in text
