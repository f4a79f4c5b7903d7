"""The package `kenlm`, or where it is not built, its stand-in; and binary files that build_binary made."""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

BINARIES = Path(__file__).parent / "binaries"
KINDS = ("probing", "trie", "quantised", "array", "both")
STAND_IN = Path(__file__).parent / "stand_in"


def import_from(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a package `kenlm` of a folder importable, here and in child processes."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def kenlm_package(monkeypatch) -> Iterator[None]:
    if find_spec("kenlm") is None:
        import_from(monkeypatch, STAND_IN)
        import_module("kenlm")  # fails here where flashlight is not installed
    yield
    sys.modules.pop("kenlm", None)
