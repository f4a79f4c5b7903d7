"""Hostile texts and times for tests of formats."""

import unicodedata
from typing import Any, NamedTuple

from hypothesis import strategies as st


class Span(NamedTuple):
    """A word with its times in seconds and its probability."""

    text: str
    start: float
    end: float
    score: float
    speaker: str = ""


def as_labels(spans: list[Span], key: str = "word") -> list[dict[str, Any]]:
    """Return spans as a label shard has them."""
    return [{key: one.text, "start": one.start, "end": one.end, "score": one.score} for one in spans]


def on_one_line(text: str) -> str:
    """Return a text as readers of a file of one line a text show it."""
    kept = (" " if one.isspace() else one for one in text if one.isspace() or unicodedata.category(one) != "Cc")
    return " ".join("".join(kept).split())


HOSTILE = (
    *("00:01 --> 00:02", "a\nb\r\n\r\nc", "<b>&amp;</b>", 'say "no" ""', "../../etc/passwd", "{\\an8}", "\\N"),
    *(
        "\ud800 lone",
        "x\udfff",
        "\x00\x1b[31m",
        "שלום עולם",
        "\u202eevil",
        "می\u200cروم",
        "a\u2028b\x85c",
        "%20",
        ";; no",
    ),
    *("# no", " ", "", "NOTE", "WEBVTT", "<NA>", "é", "e\u0301" * 50, "x" * 300, "CON", "nul.txt"),
)
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=30))
"""Texts with any characters, surrogates included."""
STORED = TEXTS.map(lambda text: text.encode("utf-8", "replace").decode())
"""Texts that a label shard can hold."""


@st.composite
def words(draw, most: int = 12) -> list[Span]:
    """Words in order that do not overlap, with milliseconds as times."""
    found, place = [], 0
    for text in draw(st.lists(TEXTS, max_size=most)):
        start = place + draw(st.integers(0, 4000))
        place = start + draw(st.integers(1, 2000))
        found.append(Span(text, start / 1000, place / 1000, draw(st.floats(0, 1))))
    return found


WILD_NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
STORED_WILD = st.lists(st.builds(Span, STORED, WILD_NUMBERS, WILD_NUMBERS, WILD_NUMBERS), max_size=8)
