"""Rules for reference texts, of trainings and evaluations."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, ClassVar, Literal

from raysp.specs.values import Named, spec

if TYPE_CHECKING:
    from raysp.text.error_rates import Normalisation


@spec
class Text:
    """Rules for the reference texts.

    Texts are in Unicode's form NFC, with single spaces between words.

    Attributes:
        case: "lower", "upper", or "keep".
        keep: "all" characters; "letters": letters with their marks, digits, and apostrophes within words; or the
            characters that stay besides spaces, in a string. Others become spaces.
        language: "tr" or "az": İ and i, I and ı are pairs, as in Turkish and Azerbaijani. Evaluations of a training
            compare texts by the same rule. None: the case rules that most languages share, by which I and i are one.
    """

    NOT_HASHED: ClassVar = ("language",)

    case: Literal["keep", "lower", "upper"] = "keep"
    _: KW_ONLY
    keep: Named = "all"
    language: Literal["tr", "az"] | None = None


def normalisation_of(choice: str | Text) -> "Normalisation":
    """Return the normalisation of a name, or by rules of one's own.

    Raises:
        SpecError: the name is unknown, or its package is not installed.
    """
    from raysp.text.error_rates import TextRules, normalisation

    if isinstance(choice, Text):
        return normalisation(TextRules(choice.case, choice.keep, choice.language))
    return normalisation(choice)
