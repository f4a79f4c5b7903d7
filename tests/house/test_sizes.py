"""The report of sizes counts what it names."""

import subprocess
import sys

import pytest

from tests.house import __main__ as house
from tests.house import sizes

MODULE = '''"""A module.

Of two paragraphs.
"""

import os
from pathlib import (
    Path,
)

# A comment.
LIMIT = 3  # code
"""Docstring of a constant."""


class Thing:
    """A class."""

    def method(self) -> str:
        """Return a text."""
        import sys

        return sys.argv[0]  # code
'''


@pytest.fixture
def package(tmp_path):
    (tmp_path / "raysp" / "room" / "below").mkdir(parents=True)
    for name in ("top.py", "room/one.py", "room/below/two.py"):
        (tmp_path / "raysp" / name).write_text(MODULE)
    return tmp_path / "raysp"


def test_lines_are_counted_by_room(package):
    lines, docstrings, blank, comments, imports = 23, 7, 6, 1, 5
    of_one = [lines, lines - docstrings - blank - comments - imports, docstrings, blank, comments, imports, 1, 1]
    rooms = sizes.rooms(package)
    assert rooms == {number: [n, *(n * one for one in of_one)] for number, n in (("all", 3), ("room", 2), (".", 1))}
    assert [*rooms] == ["all", "room", "."]


def test_the_longest_folder_decides_the_layer(tmp_path):
    for name in (
        "training/test_a.py",
        "training/sink/test_b.py",
        "training/runs/test_c.py",
        "conftest.py",
        "test_d.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n2\n")
    found = {layer: figures for layer, figures in sizes.layers(tmp_path).items() if figures != (0, 0)}
    assert found == {
        "training": (2, 4),
        "protocol": (1, 2),
        sizes.HOUSE: (1, 2),
        sizes.HELPERS: (1, 2),
    }


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("import raysp\nfrom raysp import Pipeline\nfrom raysp.cli import main\nimport numpy.raysp.room", set()),
        ("from raysp import room, top", {"raysp.room", "raysp.top"}),
        ("def test():\n    from raysp.room.one import name", {"raysp.room.one"}),
        ("import raysp.room.below.two as two", {"raysp.room.below.two"}),
    ],
)
def test_imports_of_the_inside_are_found(package, text, modules):
    assert sizes.inside_imports(text, package) == modules


def test_patches_of_raysp_are_told_from_others():
    text = """
import os
from raysp.room import one
def test(monkeypatch, patched, mocker):
    monkeypatch.setattr(one.Thing, "method", None)
    monkeypatch.setattr("raysp.room.one.LIMIT", 2)
    patched.setitem(one.TABLE["a"], "b", 2)
    monkeypatch.setattr(os, "fsync", None)
    mocker.patch("raysp.top.LIMIT")
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    setattr(one, "a", 2)
"""
    assert sizes.patches(text) == (5, 4)


@pytest.mark.drivers
def test_the_command_prints_every_table():
    ran = subprocess.run([sys.executable, "-m", "tests.house"], cwd=sizes.CHECKOUT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    heads = [part.split()[0] for part in ran.stdout.split("\n\n")]
    assert heads == ["room", "layer", "figure"]
    for line in ("training ", "by promise ", "test files that import the inside ", "words of docs/ "):
        assert f"\n{line}" in ran.stdout


@pytest.mark.drivers
@pytest.mark.parametrize("name", house.TRACES)
def test_a_trace_counts_functions_of_raysp(name):
    figures = house.traced(name)
    assert 50 < figures["functions"] < 3000
    assert 10 < figures["files"] <= figures["modules"] + 1


@pytest.mark.parametrize("name", house.CEILINGS)
def test_a_trace_has_no_more_functions_than_its_ceiling(name):
    figures, ceilings = house.traced(name), house.CEILINGS[name]
    assert {figure: figures[figure] for figure, most in ceilings.items() if figures[figure] > most} == {}, (
        f"`python -m tests.house.traces {name} --names` lists the functions"
    )


def test_tests_by_promise_use_public_names_and_patch_nothing_of_raysp():
    texts = {path.name: path.read_text() for path in (sizes.CHECKOUT / "tests" / "by_promise").glob("*.py")}
    assert len(texts) > 20
    assert {name for name, text in texts.items() if sizes.inside_imports(text, sizes.CHECKOUT / "raysp")} == set()
    assert {name for name, text in texts.items() if sizes.patches(text)[1]} == set()
