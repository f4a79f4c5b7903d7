"""Ceilings of the house, and that what they count is counted."""

import pytest

from tests.house import __main__ as house
from tests.house import sizes
from tests.soaked import soaked


@pytest.fixture
def package(tmp_path):
    (tmp_path / "raysp" / "room" / "below").mkdir(parents=True)
    for name in ("top.py", "room/one.py", "room/below/two.py"):
        (tmp_path / "raysp" / name).touch()
    return tmp_path / "raysp"


def test_imports_of_the_inside_and_patches_of_raysp_are_found(package):
    inside = """
import raysp, numpy.raysp.room
from raysp import Pipeline, top
from raysp.cli import main
def test(monkeypatch, patched, mocker):
    from raysp.room import one
    import raysp.room.below.two as two
    monkeypatch.setattr(one.Thing, "method", None)
    monkeypatch.setattr("raysp.room.one.LIMIT", 2)
    patched.setitem(one.TABLE["a"], "b", 2)
    monkeypatch.setattr(os, "fsync", None)
    mocker.patch("raysp.top.LIMIT")
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    setattr(one, "a", 2)
"""
    assert sizes.inside_imports(inside, package) == {"raysp.top", "raysp.room", "raysp.room.below.two"}
    assert sizes.patches(inside) == (5, 4)


@pytest.mark.parametrize("name", ["batch", *soaked(["training"])])
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


@pytest.mark.parametrize("layer", house.MOST_LINES)
def test_a_layer_of_the_tests_has_no_more_lines_than_its_ceiling(layer):
    _, lines = sizes.layers(sizes.CHECKOUT / "tests")[layer]
    assert lines <= house.MOST_LINES[layer]


def test_the_tests_import_and_patch_no_more_of_the_inside_than_their_ceilings():
    figures = house.figures_of_tests()
    assert {name: figures[name] for name, most in house.MOST_OF_TESTS.items() if figures[name] > most} == {}
