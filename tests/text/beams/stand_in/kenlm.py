"""KenLM as flashlight has it, under the names of the package `kenlm`, which is built by a C++ compiler."""

from pathlib import Path

from flashlight.lib.text.decoder.kenlm import KenLM
from flashlight.lib.text.dictionary import Dictionary

from raysp.text.beams import kenlm


class Config:
    """Settings, of which flashlight has none."""


class State:
    """State of flashlight's KenLM."""

    held: object = None


class Model:
    """The part of `kenlm.Model` that raysp uses."""

    def __init__(self, path: str, config: Config) -> None:
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
