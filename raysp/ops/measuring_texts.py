"""Signals of texts: rates, repetition, words, scripts, phrases and languages, and speech without a word."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, cast

import pyarrow as pa

from raysp.columns import SECONDS
from raysp.ops.step_ops import ColumnOp
from raysp.text.error_rates import compression, longest_repetition
from raysp.text.phrases import Phrases
from raysp.text.scripts import script_share, scripts_of
from raysp.text.text_languages import text_language
from raysp.text.unread import unread

Spans = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class TextColumns:
    """Columns of other outputs of the step, of which the signals of texts are; None: there is none."""

    text: str | None = None
    words: str | None = None
    """Words with times: of the text, or of the only text that is aligned."""
    speech: str | None = None
    """Regions of speech; None: the regions found by level."""
    language: str | None = None
    """Detected languages."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that there are."""
        return tuple(filter(None, (self.text, self.words, self.speech, self.language)))


@dataclass(eq=False)
class TextMeasuring(ColumnOp):
    """Op that adds the signals of a text to the signals of its recording.

    Attributes:
        schema: column of structs with all signals, then the columns of the language of the text, if it is recognised.
        columns: columns of other outputs.
        language: language of all texts, by which the share of its scripts is measured; None: the one of the row.
        phrases: phrases whose share of the text is measured; None: it is not.
    """

    schema: pa.Schema
    _: KW_ONLY
    columns: TextColumns
    language: str | None = None
    phrases: Phrases | None = None
    name: str = field(default="Signals", init=False)

    def __post_init__(self) -> None:
        self.reads = tuple(dict.fromkeys((*self.schema.names, SECONDS, *self.columns.names)))

    def __call__(self, rows: pa.Table) -> Mapping[str, Sequence[object]]:
        name, *of_language = self.schema.names
        signals = [self._row(name, row) for row in rows.to_pylist()]
        added: dict[str, Sequence[object]] = {name: signals}
        if of_language and self.columns.text is not None:
            texts = cast("list[str | None]", rows.column(self.columns.text).to_pylist())
            recognised = [(None, None) if text is None else text_language(text) for text in texts]
            added |= dict(zip(of_language, zip(*recognised, strict=True), strict=True))
        else:
            added |= {column: [None] * len(signals) for column in of_language}
        return added

    def _row(self, name: str, row: Mapping[str, Any]) -> dict[str, object]:
        """Return the signals of a row."""
        signals, columns, seconds = dict(row[name]), self.columns, row[SECONDS]
        speech: Spans = signals.pop("speech")
        read, of_row = signals.pop("read"), signals.pop("language")
        language = self.language or of_row
        text = row[columns.text] if columns.text else None
        if columns.speech is not None:
            speech = row[columns.speech]
            signals["speech_share"] = sum(region["end"] - region["start"] for region in speech) / seconds
        words: Spans | None = row[columns.words] if columns.words else None
        if words is not None or text == "":
            signals |= _unread(speech, words or ())
        elif text is not None and read is not None and (of_windows := _unread(speech, read))["unread"]:
            signals |= of_windows
        if text is not None:
            detected = row[columns.language] if columns.language else None
            signals |= signals_of_text(text, seconds)
            signals["script_share"] = _script_share(text, language or (detected and detected["language"]))
            if self.phrases is not None:
                signals["phrases"] = self.phrases.share(text)
        return signals


def _unread(speech: Spans, words: Spans) -> dict[str, float]:
    """Return the signals of speech without a word, or outside of the windows that have a text."""
    regions = [(region["start"], region["end"]) for region in speech]
    longest, share = unread(regions, [(word["start"], word["end"]) for word in words if word["start"] is not None])
    return {"unread": longest, "unread_share": share}


def _script_share(text: str, language: str | None) -> float | None:
    scripts = scripts_of(language) if language else ()
    return script_share(text, scripts) if scripts else None


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
