"""Transcripts that text decoders write."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from typing import Any, cast

import numpy as np
import pyarrow as pa

from raysp.crossing import Array
from raysp.models.labelled_passes import Writer, Written
from raysp.ops.forward import Forward, OutputOp, Rows, Selected
from raysp.ops.rows import PLACE


@dataclass(eq=False)
class Writing(OutputOp):
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

    schema: pa.Schema
    staged: pa.Schema
    write: Writer | None
    _: KW_ONLY
    frame_seconds: float
    words: bool
    languages: Sequence[str] | None

    def select(self, forward: Forward) -> Selected:
        assert self.write is not None
        return {"written": self.write(forward.encoded, forward.features, forward.rows.names)}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        parts = [self._part(written) for written in cast("Sequence[Written]", arrays["written"])]
        no_label, no_part = (None,) * len(self.schema), (None,) * len(self.staged)
        values = [
            (*self._label(*of_window), *no_part) if part is None else (*no_label, *of_window)
            for of_window, part in zip(parts, rows.parts, strict=True)
        ]
        return [list(column) for column in zip(*values, strict=True)]

    def empty(self) -> tuple[object, ...]:
        return self._label("", 0.0, 0, [], [])

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        # Probabilities of languages are means over the windows.
        texts, totals, counts, *more = (
            cast("list[Any]", windows.column(name).to_pylist()) for name in self.staged.names
        )
        text = " ".join(stripped for part in texts if (stripped := part.strip()))
        spans = [
            {**word, "start": start + word["start"], "end": start + word["end"]}
            for start, row in zip(self._starts(windows), more[0] if self.words else (), strict=False)
            for word in row
        ]
        languages = np.mean(more[-1], axis=0).tolist() if self.languages else []
        return self._label(text, sum(totals), sum(counts), spans, languages)

    def _part(self, row: Written) -> tuple[Any, ...]:
        words = ([word._asdict() for word in row.words],) if self.words else ()
        return (row.text, row.log_prob, row.num_tokens, *words, *((list(row.languages),) if self.languages else ()))

    def _label(self, text: str, total: float, count: int, *more: Any) -> tuple[object, ...]:  # noqa: ANN401
        words = more[:1] if self.words else ()
        language = (self._detected(more[-1]),) if self.languages else ()
        return (text.strip(), total / count if count else None, *words, *language)

    def _detected(self, probabilities: Sequence[float]) -> Mapping[str, object] | None:
        """Return the most probable language."""
        if not probabilities or self.languages is None:
            return None
        if not (score := max(probabilities)):
            return None
        return {"language": self.languages[probabilities.index(score)], "score": score}

    def _starts(self, windows: pa.Table) -> list[float]:
        """Return the seconds of a row at which its windows start; windows without a place follow each other."""
        if PLACE in windows.column_names:
            return [frame * self.frame_seconds for frame in cast("list[int]", windows.column(PLACE).to_pylist())]
        seconds = cast("list[float]", windows.column("seconds").to_pylist())
        return [0.0, *accumulate(seconds[:-1])]
