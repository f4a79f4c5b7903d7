"""The package `kenlm`, or where it is not built, KenLM as flashlight has it, behind the same names."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from raysp.text.beams import kenlm

BINARIES = Path(__file__).parent / "binaries"
KINDS = ("probing", "trie", "quantised", "array", "both")


class State:
    """State of flashlight's KenLM."""

    held: object = None


class Model:
    """The part of `kenlm.Model` that raysp uses."""

    def __init__(self, path: str, config: object) -> None:
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        words = kenlm.read_words(Path(path), kenlm.read_header(Path(path)))
        self.places = {word: place for place, word in enumerate(words)}
        self.model = KenLM(path, Dictionary(words))

    def BeginSentenceWrite(self, state: State) -> None:  # noqa: N802
        state.held = self.model.start(False)

    def NullContextWrite(self, state: State) -> None:  # noqa: N802
        state.held = self.model.start(True)

    def BaseScore(self, state: State, word: str, after: State) -> float:  # noqa: N802
        after.held, log10 = self.model.score(state.held, self.places[word])
        return float(log10)


@pytest.fixture
def kenlm_package(monkeypatch) -> str:
    """Make a package `kenlm` importable; the package itself where it is installed."""
    kenlm._opened.cache_clear()
    monkeypatch.setattr(kenlm, "PROGRAM", "tests.text.beams.probing")
    if find_spec("kenlm") is not None:
        return "kenlm"
    import_module("flashlight")
    monkeypatch.setitem(sys.modules, "kenlm", stand_in())
    return "flashlight"


def stand_in() -> ModuleType:
    module = ModuleType("kenlm")
    module.State, module.Model, module.Config = State, Model, type("Config", (), {})
    return module
