"""Signals of texts: rates, repetition, words, scripts, phrases and languages, and speech without a word."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import pyarrow as pa

from raysp.columns import SECONDS
from raysp.ops.step_ops import ColumnOp
from raysp.text.error_rates import compression, longest_repetition
from raysp.text.phrases import Phrases
from raysp.text.scripts import script_share, scripts_of
from raysp.text.text_languages import text_language
from raysp.text.unread import unread

Spans = Sequence[Mapping[str, Any]]


@dataclass(eq=False)
class TextMeasuring(ColumnOp):
    """Op that adds the signals of a text to the signals of its recording, from columns of other outputs of the step.

    Attributes:
        schema: column of structs with all signals, then the columns of the language of the text, if it is recognised.
        text: column of the text; None: there is none.
        words: column of words with times: of the text, or of the only text that is aligned; None: there is none.
        speech: column of regions of speech; None: the regions found by level.
        detected: column of detected languages; None: there is none.
        language: language of all texts, by which the share of its scripts is measured; None: the one of the row.
        phrases: phrases whose share of the text is measured; None: it is not.
    """

    schema: pa.Schema
    _: KW_ONLY
    text: str | None
    words: str | None
    speech: str | None
    detected: str | None
    language: str | None = None
    phrases: Phrases | None = None
    name: str = field(default="Signals", init=False)

    def __post_init__(self) -> None:
        of_outputs = filter(None, (self.text, self.words, self.speech, self.detected))
        self.reads = tuple(dict.fromkeys((*self.schema.names, SECONDS, *of_outputs)))

    def __call__(self, rows: pa.Table) -> Mapping[str, Sequence[object]]:
        name, *of_language = self.schema.names
        signals = [self._row(name, row) for row in rows.to_pylist()]
        texts: list[Any] = rows.column(self.text).to_pylist() if of_language and self.text else [None] * len(signals)
        recognised = [(None, None) if text is None else text_language(text) for text in texts]
        return {name: signals, **dict(zip(of_language, zip(*recognised, strict=True), strict=False))}

    def _row(self, name: str, row: Mapping[str, Any]) -> dict[str, object]:
        """Return the signals of a row."""
        signals, seconds = dict(row[name]), row[SECONDS]
        speech: Spans = signals.pop("speech")
        read, of_row = signals.pop("read"), signals.pop("language")
        language = self.language or of_row
        text = row[self.text] if self.text else None
        if self.speech is not None:
            speech = row[self.speech]
            signals["speech_share"] = sum(region["end"] - region["start"] for region in speech) / seconds
        words: Spans | None = row[self.words] if self.words else None
        if words is not None or text == "":
            signals |= _unread(speech, words or ())
        elif text is not None and read is not None and (of_windows := _unread(speech, read))["unread"]:
            signals |= of_windows
        if text is not None:
            detected = row[self.detected] if self.detected else None
            signals |= signals_of_text(text, seconds)
            scripts = scripts_of(language or (detected and detected["language"]) or "")
            signals["script_share"] = script_share(text, scripts) if scripts else None
            if self.phrases is not None:
                signals["phrases"] = self.phrases.share(text)
        return signals


def _unread(speech: Spans, words: Spans) -> dict[str, float]:
    """Return the signals of speech without a word, or outside of the windows that have a text."""
    regions = [(region["start"], region["end"]) for region in speech]
    longest, share = unread(regions, [(word["start"], word["end"]) for word in words if word["start"] is not None])
    return {"unread": longest, "unread_share": share}


def signals_of_text(text: str, seconds: float) -> dict[str, float]:
    """Return rates of a text spoken in some seconds, measures of its repetition, and of its words.

    Returns:
        `chars_per_second` (without spaces), `words_per_second`, `repetition` (words of the longest repeated sequence),
        `repeats` (occurrences of this sequence), `compression` (bytes over compressed bytes), `unique_words` (different
        words over words), `longest_word` (characters), `longest_ratio` (of the longest word to the next).
    """
    words = text.split()
    repetition = longest_repetition(words)
    longest, following = sorted([0, 0, *map(len, words)], reverse=True)[:2]
    return {
        "chars_per_second": sum(map(len, words)) / seconds,
        "words_per_second": len(words) / seconds,
        "repetition": repetition.words,
        "repeats": repetition.times,
        "compression": compression(text),
        "unique_words": len({*words}) / len(words) if words else 1.0,
        "longest_word": longest,
        "longest_ratio": longest / following if following else 1.0,
    }
