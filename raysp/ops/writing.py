"""Transcripts that text decoders write."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from typing import Any, cast

import numpy as np
import pyarrow as pa

from raysp.crossing import Array
from raysp.models.labelled_passes import TimedWord, Writer, Written
from raysp.ops.forward import Forward, Rows, Selected, StagingOp
from raysp.ops.rows import PLACE


@dataclass(eq=False)
class Writing(StagingOp):
    """Op for the text of each recording and the mean log-probability of its tokens.

    For a window of a longer row it stages the text. `join` concatenates the texts of all windows, which end at quiet
    points.

    Attributes:
        schema: columns of text and score, and optionally of words and the detected language.
        staged: staged columns of a window of a longer row: text, sum of log-probabilities, number of tokens; words, and
            probabilities of languages.
        write: text decoder; None if only `join` is called.
        frame_seconds: seconds of a frame, the unit of the places of windows.
        words: whether there are words.
        languages: candidates of language detection; None: no detection.
    """

    write: Writer | None
    _: KW_ONLY
    frame_seconds: float
    words: bool
    languages: Sequence[str] | None

    def select(self, forward: Forward) -> Selected:
        assert self.write is not None
        return {"written": self.write(forward.encoded, forward.features, forward.rows.names)}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        of_windows = zip(cast("Sequence[Written]", arrays["written"]), rows.parts, strict=True)
        return rows.either(self, (self._label(text) if part is None else self._part(text) for text, part in of_windows))

    def empty(self) -> tuple[object, ...]:
        return self._label(Written("", 0.0, 0))

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        # Probabilities of languages are means over the windows.
        texts, totals, counts, *more = (
            cast("list[Any]", windows.column(name).to_pylist()) for name in self.staged.names
        )
        text = " ".join(stripped for part in texts if (stripped := part.strip()))
        words = [
            TimedWord(**{**word, "start": start + word["start"], "end": start + word["end"]})
            for start, row in zip(self._starts(windows), more[0] if self.words else (), strict=False)
            for word in row
        ]
        languages = np.mean(more[-1], axis=0).tolist() if self.languages else []
        return self._label(Written(text, sum(totals), sum(counts), words, languages))

    def _part(self, row: Written) -> tuple[Any, ...]:
        languages = ([*row.languages],) if self.languages else ()
        return (row.text, row.log_prob, row.num_tokens, *self._words(row), *languages)

    def _label(self, row: Written) -> tuple[object, ...]:
        score = row.log_prob / row.num_tokens if row.num_tokens else None
        language: tuple[object, ...] = ()
        if self.languages:
            best = max(row.languages, default=0.0)
            language = ({"language": self.languages[row.languages.index(best)], "score": best} if best else None,)
        return (row.text.strip(), score, *self._words(row), *language)

    def _words(self, row: Written) -> tuple[object, ...]:
        return ([word._asdict() for word in row.words],) if self.words else ()

    def _starts(self, windows: pa.Table) -> list[float]:
        """Return the seconds of a row at which its windows start; windows without a place follow each other."""
        if PLACE in windows.column_names:
            return [frame * self.frame_seconds for frame in cast("list[int]", windows.column(PLACE).to_pylist())]
        seconds = cast("list[float]", windows.column("seconds").to_pylist())
        return [0.0, *accumulate(seconds[:-1])]
