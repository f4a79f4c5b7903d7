"""Mutants are drawn by a seed, one a line, and leave out what no test could notice."""

from tests.mutants.drawing import draw, is_valid, mutants_of

LEFT_OUT = '''
"""A module."""
from typing import TYPE_CHECKING, overload
if TYPE_CHECKING:
    LIMIT = 3
__all__ = ["a", 3]
def found(size: "int | Sized[3]") -> "Sized[4]":
    """Return 3."""
    logger.info("found %s", 3)
    assert size > 3
    isinstance(size, (A, B[3]))
@overload
def f(a=3): ...
TEXT = f"{3}"
'''


CHANGES = [
    ("x = a < b", "comparison", "x = (a <= b)"),
    ("x = a + b * c", "arithmetic", "x = (a - b * c)"),
    ("x = 'ä' + f(3)", "constant", "x = 'ä' + f((4))"),
    ("x = a and b or c", "and/or", "x = (a or b) or c"),
    ("x = not a", "removed not", "x = (a)"),
    ("x = b if a else c", "negated condition", "x = b if (not (a)) else c"),
    ("if a:\n  b()", "negated condition", "if (not (a)):\n  b()"),
    ("if a:\n  b(\n    c\n  )\nd", "removed statement", "if a:\n  pass\nd"),
    ("def f():\n  return a", "returned nothing", "def f():\n  return None"),
    ("f(a, b, c)", "swapped arguments", "(f(b, a, c))"),
]
"""Text, kind of a change of it, and the changed text."""


def test_a_change_of_each_kind_and_none_that_no_test_could_notice():
    for text, kind, changed in CHANGES:
        found = {(mutant.kind, mutant.apply(text)) for mutant in mutants_of(text, "a.py")}
        assert (kind, changed) in found
    assert [mutant for mutant in mutants_of(LEFT_OUT, "a.py") if mutant.kind != "removed statement"] == []


def test_a_draw_follows_from_its_seed_and_has_a_line_once(tmp_path):
    (tmp_path / "raysp" / "room").mkdir(parents=True)
    for name in ("a.py", "room/b.py"):
        (tmp_path / "raysp" / name).write_text("".join(f"x = a < {n}\n" for n in range(10)))
    ten = draw(tmp_path, 1, 10)
    assert ten == draw(tmp_path, 1, 10) != draw(tmp_path, 2, 10)
    every = draw(tmp_path, 1, 100)
    assert len(every) == len({(one.file, one.line) for one in every}) == 20
    assert all(is_valid(one.apply((tmp_path / one.file).read_text())) for one in every)
