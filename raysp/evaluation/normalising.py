"""Named rules by which references and hypotheses are normalised before they are compared."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module, metadata
from typing import get_args

from raysp.errors import SpecError
from raysp.text.normalisation import Language, TextRules

RULES = {
    "none": (TextRules(), "Unicode NFC and single spaces only"),
    "lower": (TextRules(case="lower"), "lower case"),
    "letters": (TextRules(case="lower", keep="letters"), "lower case; letters, digits and apostrophes within words"),
}
WHISPER = {"whisper-english": "english.EnglishTextNormalizer", "whisper-basic": "basic.BasicTextNormalizer"}
"""Classes of the package whisper-normalizer."""
NAMES = (*RULES, *WHISPER)
LANGUAGES: tuple[Language, ...] = get_args(Language)
"""Languages whose case rules a name may end with, as "letters-tr"."""
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


def in_language(choice: str, language: Language | None) -> str:
    """Return the name of a normalisation with the case rules of a language."""
    has_case = choice != "none" and _split(choice)[1] is None
    return f"{choice}-{language}" if language is not None and has_case else choice


def _split(choice: str) -> tuple[str, Language | None]:
    """Return a name without its language, and the language."""
    name, _, language = choice.rpartition("-")
    return (name, language) if name and language in LANGUAGES else (choice, None)


def normalisation(choice: str | TextRules) -> Normalisation:
    """Return the normalisation of a name, or by rules of one's own.

    Raises:
        SpecError: the name is unknown, or its package is not installed.
    """
    if isinstance(choice, TextRules):
        more = f", language={choice.language!r}" if choice.language else ""
        return Normalisation("rules", f"case={choice.case!r}, keep={choice.keep!r}{more}", choice)
    name, language = _split(choice)
    if name in RULES and (language is None or name != "none"):
        rules, description = RULES[name]
        return _in_language(Normalisation(name, description, replace(rules, language=language)), language)
    if name in WHISPER:
        return _in_language(_whisper(name), language)
    raise SpecError(
        f"found the normalisation {choice!r}, expected one of {', '.join(NAMES)}; all but none may end with the "
        f"language of its case rules, {' or '.join(f'-{one}' for one in LANGUAGES)}"
    )


def _in_language(found: Normalisation, language: Language | None) -> Normalisation:
    """Return a normalisation after which texts are in lower case, with the case rules of a language."""
    if language is None:
        return found
    lower = TextRules("lower", language=language)
    return Normalisation(
        f"{found.name}-{language}",
        f"{found.description}; case of {language}",
        lambda text: found.function(lower(text)),
    )


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
