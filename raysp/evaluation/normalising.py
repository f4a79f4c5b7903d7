"""Named rules by which references and hypotheses are normalised before they are compared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module, metadata

from raysp.errors import SpecError
from raysp.text.normalisation import TextRules

RULES = {
    "none": (TextRules(), "Unicode NFC and single spaces only"),
    "lower": (TextRules(case="lower"), "lower case"),
    "letters": (TextRules(case="lower", keep="letters"), "lower case; letters, digits and apostrophes within words"),
}
WHISPER = {"whisper-english": "english.EnglishTextNormalizer", "whisper-basic": "basic.BasicTextNormalizer"}
"""Classes of the package whisper-normalizer."""
NAMES = (*RULES, *WHISPER)
DEFAULT = "letters"


@dataclass(frozen=True)
class Normalisation:
    """A function that normalises texts, with its name and a description for reports."""

    name: str
    description: str
    function: Callable[[str], str] = field(repr=False, compare=False)

    def __call__(self, text: str) -> str:
        """Return a text in Unicode's form NFC, normalised, with single spaces between words."""
        return _SPACED(self.function(text))


@dataclass(frozen=True)
class Normalised:
    """Normalisation of both texts."""

    name: str
    description: str


_SPACED = TextRules()


def normalisation(choice: str | TextRules) -> Normalisation:
    """Return the normalisation of a name, or by rules of one's own.

    Raises:
        SpecError: the name is unknown, or its package is not installed.
    """
    if isinstance(choice, TextRules):
        return Normalisation("rules", f"case={choice.case!r}, keep={choice.keep!r}", choice)
    if choice in RULES:
        rules, description = RULES[choice]
        return Normalisation(choice, description, rules)
    if choice in WHISPER:
        return _whisper(choice)
    raise SpecError(f"found the normalisation {choice!r}, expected one of {', '.join(NAMES)}")


def _whisper(choice: str) -> Normalisation:
    module, _, name = WHISPER[choice].rpartition(".")
    try:
        function = getattr(import_module(f"whisper_normalizer.{module}"), name)()
    except ImportError:
        raise SpecError(
            f"the normalisation {choice!r} needs the package whisper-normalizer, which is not installed; "
            "pip install 'raysp[whisper-normalizer]', or choose another one"
        ) from None
    return Normalisation(choice, f"{name} of whisper-normalizer {metadata.version('whisper-normalizer')}", function)
