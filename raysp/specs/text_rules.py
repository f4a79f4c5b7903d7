"""Rules for reference texts, of trainings and evaluations."""

from dataclasses import KW_ONLY
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from raysp.specs.values import spec


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

    NOT_HASHED: ClassVar = {"language": None}

    case: Literal["keep", "lower", "upper"] = "keep"
    _: KW_ONLY
    keep: Annotated[str, Field(min_length=1)] = "all"
    language: Literal["tr", "az"] | None = None
