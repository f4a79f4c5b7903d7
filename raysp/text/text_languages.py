"""Languages of texts, by the package py3langid, whose model is in its wheel."""

import functools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier


class TextLanguage(NamedTuple):
    """Language of a text."""

    code: str | None
    """ISO 639-1, in a few cases 639-3; None for a text without letters."""
    score: float | None
    """Probability among all languages of the model."""


def text_language(text: str) -> TextLanguage:
    """Return the most probable language of a text."""
    if not any(map(str.isalpha, text)):
        return TextLanguage(None, None)
    return TextLanguage(*_identifier().classify(text))


@functools.cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
