"""Transcripts from the frames of transducers, with times of words and of pieces."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.capabilities import Capability
from raysp.crossing import Array
from raysp.ops.forward import Forward, Rows, Selected, StagingOp
from raysp.ops.rows import stretches
from raysp.ops.transcribing import StretchText, Transcribing, flat, in_a_row
from raysp.text.greedy_ctc import CTCTokens, row_means
from raysp.text.times import shared_frames

if TYPE_CHECKING:
    from raysp.models.parakeet_transducers import ParakeetForRNNT


class Tokens(NamedTuple):
    """Tokens in their order, with the frames from their first to their end, and log-probabilities."""

    ids: npt.NDArray[np.int32]
    frames: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]

    def later(self, frames: int) -> "Tokens":
        """Return the tokens, shifted by a number of frames."""
        return self._replace(frames=self.frames + frames, ends=self.ends + frames)


@dataclass(eq=False)
class Transducing(StagingOp):
    """Op for text and score of each recording, and optionally the times of its words and pieces.

    A token begins with the frame that emits it, and lasts for its duration, or one frame, but not beyond the start of
    the next token; tokens of one frame have equal parts of it. For a window of a longer row the op stages the tokens
    that begin in the frames that the window owns. `join` concatenates the tokens of all windows, with the same
    arithmetic.

    Args:
        schema: columns of `texts`.
        staged: staged columns of a window of a longer row: ids, frames, ends and log-probabilities of its tokens, and
            the number of its frames.
        texts: op of a CTC model with the same tokens.
        model: the transducer; None if only `join` is called.
    """

    texts: Transcribing
    model: "ParakeetForRNNT | None"

    def select(self, forward: Forward) -> Selected:
        assert self.model is not None
        # On a GPU the host waits between the steps of the search.
        path = self.model.search(forward.heads[Capability.TRANSDUCER].pooler_output, forward.num_frames_B)
        frames, spans = path.frames_BS.int(), path.spans_BS.int()
        return {"ids": path.tokens_BS.int(), "frames": frames, "spans": spans, "scores": path.scores_BS}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        windows = list(zip(self._rows(arrays, rows.lengths.frames), rows.parts, strict=True))
        # The text of a single part is unused.
        texts = zip(*self.texts_of([_owned(row, 0, 0) if part else row for row, part in windows]), strict=True)
        parts = (
            text if part is None else self._part(row, part) for text, (row, part) in zip(texts, windows, strict=True)
        )
        return rows.either(self, parts)

    def _rows(self, arrays: Mapping[str, Array], num_frames: Sequence[int]) -> Iterator[Tokens]:
        """Yield the tokens of each row."""
        assert self.model is not None
        ids, frames, spans, scores = (arrays[name] for name in ("ids", "frames", "spans", "scores"))
        ends = np.minimum(frames + np.maximum(spans, 1), np.array(num_frames, np.int32)[:, None])
        is_token = ~np.isin(ids, (self.model.blank, self.texts.blank))  # the latter is the id of padding
        for row, of_row in enumerate(is_token):
            yield Tokens(ids[row, of_row], frames[row, of_row], ends[row, of_row], scores[row, of_row])

    def _part(self, row: Tokens, part: tuple[int, int]) -> tuple[object, ...]:
        first, end = part
        return (*_owned(row, first, end).later(-first), end - first)

    def texts_of(self, rows: Sequence[Tokens]) -> list[Sequence[object]]:
        """Return the columns of text and score, and of words and pieces if enabled."""
        counts = np.array([len(row.ids) for row in rows], np.int64)
        ids, frames, ends, scores = (np.concatenate(of) for of in zip(*rows, strict=True))
        times = [shared_frames(row.frames, row.ends) for row in rows]
        tokens = CTCTokens(
            flat_ids=ids,
            counts=counts,
            scores=row_means(scores, counts),
            token_scores=scores,
            first_frames=frames,
            last_frames=ends - 1,
            finite=np.ones(len(rows), np.bool_),
        )
        return self.texts.texts(tokens, [np.concatenate(of) for of in zip(*times, strict=True)])

    def empty(self) -> tuple[object, ...]:
        return self.texts.empty()

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        num_frames = cast("list[int]", windows.column(self.staged.names[-1]).to_pylist())
        return in_a_row([self._of_stretch(*stretch) for stretch in stretches(windows, num_frames)], len(self.schema))

    def _of_stretch(self, stretch: pa.Table, frame: int) -> StretchText:
        *lists, counts = (stretch.column(name) for name in self.staged.names)
        begins = [*accumulate(cast("list[int]", counts.to_pylist()), initial=0)]
        windows = [[flat(values.slice(place, 1)) for values in lists] for place in range(len(counts))]
        parts = [Tokens(*window).later(begin) for window, begin in zip(windows, begins, strict=False)]
        row = Tokens(*(np.concatenate(of) for of in zip(*parts, strict=True)))
        columns = tuple(column[0] for column in self.texts_of([row]))
        return StretchText(columns, len(row.ids), frame * self.texts.frame_seconds)


def _owned(row: Tokens, first: int, end: int) -> Tokens:
    """Return the tokens that begin in frames from `first` up to `end`."""
    is_owned = (row.frames >= first) & (row.frames < end)
    return Tokens(row.ids[is_owned], row.frames[is_owned], row.ends[is_owned], row.scores[is_owned])
