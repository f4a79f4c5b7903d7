"""Mutants are drawn by a seed, one a line, and leave out what no test could notice."""

import ast

import pytest

from tests.house.mutants import changes, draw, mutated

LEFT_OUT = '''
"""A module."""
if TYPE_CHECKING:
    LIMIT = 3
def found(size: "int | Sized[3]") -> "Sized[4]":
    """Return 3."""
    logger.info("found %s", 3)
    assert size > 3
TEXT = f"{3}"
'''


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("x = a < b", "x = a <= b"),
        ("x = a + b * c", "x = a - b * c"),
        ("x = a and b or c", "x = (a or b) or c"),
        ("x = not a", "x = a"),
        ("x = b if a else 3", "x = b if not a else 3"),
        ("if a:\n    b(1, c)", "if a:\n    pass"),
        ("def f():\n    return a", "def f():\n    return"),
        ("f(a, b, 3)", "f(b, a, 3)"),
        ("f(a, b, 3)", "f(a, b, 4)"),
    ],
)
def test_a_change_of_each_kind_and_none_that_no_test_could_notice(text, changed):
    found = [mutated(text, number) for number, _ in enumerate(changes(ast.parse(text)))]
    assert f"{changed}\n" in found
    assert [*changes(ast.parse(LEFT_OUT))] == []


def test_a_draw_follows_from_its_seed_and_has_a_line_once(tmp_path):
    (tmp_path / "raysp" / "room").mkdir(parents=True)
    for name in ("a.py", "room/b.py"):
        (tmp_path / "raysp" / name).write_text("".join(f"x = a < {n}\n" for n in range(10)))
    ten = draw(tmp_path, 10, 1)
    assert ten == draw(tmp_path, 10, 1) != draw(tmp_path, 10, 2)
    every = draw(tmp_path, 100, 1)
    assert len(every) == len({(one["file"], one["line"]) for one in every}) == 20
