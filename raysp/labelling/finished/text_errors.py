"""Normalisation of texts that a user names."""

from raysp.evaluation.normalising import Normalisation, normalisation
from raysp.specs.text_rules import Text
from raysp.text.normalisation import TextRules


def asked_rules(normalise: str | Text | None) -> Normalisation | None:
    """Return the normalisation of a name or of rules; None if none is named.

    Raises:
        SpecError: the name is unknown, or its package is not installed.
    """
    if isinstance(normalise, Text):
        return normalisation(TextRules(normalise.case, normalise.keep, normalise.language))
    return None if normalise is None else normalisation(normalise)
