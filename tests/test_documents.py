"""What documents say of tests: that they are there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
RELIABILITY = TESTS.parent / "docs" / "reliability.md"
NAMED = re.compile(r"`([\w/]+\.py)::([\w:]+)`")


def named() -> list[tuple[str, str]]:
    return NAMED.findall(RELIABILITY.read_text())


def names_in(file: Path) -> set[str]:
    """Collect the tests of a file, those of a class as `TestClass::test_name`."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        found |= {f"{node.name}::{one.name}" for one in inner if isinstance(one, ast.FunctionDef)}
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("file", sorted({file for file, _ in named()}))
def test_each_test_that_reliability_is_held_by_exists(file):
    there = names_in(TESTS / file)
    wanted = {name for one, name in named() if one == file}
    assert wanted - there == set()
    assert all(name.rpartition("::")[2].startswith("test_") for name in wanted)


def test_the_tests_that_are_named_are_found_at_all():
    assert len(named()) > 80
    text = RELIABILITY.read_text()
    for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (TESTS.parent / path).is_file(), path
    assert len(re.findall(r"\.py::", text)) == len(named())  # none is written so that it would be passed over
