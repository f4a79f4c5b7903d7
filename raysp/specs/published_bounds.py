"""Published bounds of texts that a recogniser made up, as conditions on `Signals`."""

from typing import Literal

from raysp.errors import SpecError

LEAST_UNIQUE = 0.4000000059604645
"""0.4 in single precision, as labels hold it: texts of which exactly two fifths of the words are unique are flagged."""
COMPOUNDING = frozenset({"da", "de", "et", "fi", "hu", "nl", "no", "sv"})
"""Languages with long words, by Curator's codes."""


def text_bounds(
    rules: Literal["granary", "curator"], *, language: str | None = None, name: str = "signal"
) -> list[tuple[str, str, float]]:
    """Return conditions for `Keep` that texts of real speech meet, by the published rules of a corpus or tool.

    "granary": the features of hallucinations of Granary (NVIDIA's speech-data-processor): more than 0.4 of the words
    are unique, the longest word has fewer than 25 characters, and fewer than four times as many as the next. "curator":
    those of NeMo Curator, which add at most 40 characters a second, and in Danish, Dutch, Estonian, Finnish, German,
    Hungarian, Norwegian and Swedish take 35 characters and no ratio.

    Args:
        rules: whose rules.
        language: ISO 639-1 code of the language of all texts, for "curator".
        name: name of the `Signals`.

    Raises:
        SpecError: there are no such rules.
    """
    unique = (f"{name}.unique_words", ">", LEAST_UNIQUE)
    longest, ratio = (f"{name}.longest_word", "<", 25.0), (f"{name}.longest_ratio", "<", 4.0)
    if rules == "granary":
        return [unique, longest, ratio]
    if rules != "curator":
        raise SpecError(f"text_bounds: found rules={rules!r}, expected 'granary' or 'curator'")
    rate = (f"{name}.chars_per_second", "<=", 40.0)
    if language in COMPOUNDING:
        return [unique, (f"{name}.longest_word", "<", 35.0), rate]
    return [unique, longest, ratio, rate]
