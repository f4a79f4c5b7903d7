"""Read text, and the times of words and characters, out of a CTC model's frames."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.ops.labelling import Forward
from raysp.text.ctc import BestFrames, CTCTokens, best_frames, collapse
from raysp.text.times import Span, words_of

Spans = list[dict[str, object]]


class Transcribing:
    """Give text and score of every window, and where they are asked for the times of its words and characters.

    Of a window of a longer row it keeps the best token of each frame that the window answers for, and `join` reads the
    text out of the frames of all of them, with the same arithmetic.

    Args:
        schema: of the columns: text and score, then words and characters where they are asked for.
        staged: of the columns of a window of a longer row: token ids and log-probabilities of its frames.
        tokenizer: turns ids into text; its padding token is the blank.
        frame_seconds: from one frame to the next.
        words: whether words are asked for.
        chars: whether characters are asked for.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        tokenizer: Wav2Vec2CTCTokenizer,
        *,
        frame_seconds: float,
        words: bool = False,
        chars: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.blank = tokenizer.pad_token_id
        self.schema = schema
        self.staged = staged
        self.frame_seconds = frame_seconds
        self.words = words
        self.chars = chars

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Give the columns of `schema`, then those of `staged`, a value a window."""
        frames = best_frames(forward.of("Transcript")["logits"])
        is_part = [part is not None for part in forward.parts]
        if not any(is_part):
            nothing: list[Sequence[object]] = [[None] * len(is_part) for _ in self.staged]
            return [*self._columns(collapse(frames, forward.num_frames_B, blank=self.blank)), *nothing]
        # What is read out of a part alone is thrown away, so nothing is.
        parts_B = torch.tensor(is_part, device=forward.num_frames_B.device)
        tokens = collapse(frames, forward.num_frames_B.masked_fill(parts_B, 0), blank=self.blank)
        ids_BT, log_probs_BT = frames.ids.int().cpu().numpy(), frames.log_probs.cpu().numpy()
        columns: list[Sequence[object]] = [
            [None if part else value for part, value in zip(is_part, column, strict=True)]
            for column in self._columns(tokens)
        ]
        for values_BT in (ids_BT, log_probs_BT):
            columns.append(
                [
                    None if part is None else row[slice(*part)]
                    for part, row in zip(forward.parts, values_BT, strict=True)
                ]
            )
        return columns

    def empty(self) -> tuple[object, ...]:
        """Give the values of a recording that is too short to hold a frame."""
        return ("", None, *([] for _ in self.schema.names[2:]))

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Give the columns of `schema` of one row, from the `staged` columns of its windows in their order."""
        ids, log_probs = (_flat(windows.column(name)) for name in self.staged.names)
        frames = BestFrames(torch.from_numpy(ids).long()[None], torch.from_numpy(log_probs)[None])
        columns = self._columns(collapse(frames, torch.tensor([len(ids)]), blank=self.blank))
        return tuple(column[0] for column in columns)

    def _columns(self, tokens: CTCTokens) -> list[Sequence[object]]:
        columns: list[Sequence[object]] = [
            self.tokenizer.decode_collapsed_rows(tokens.flat_ids, tokens.counts),
            tokens.score_list(),
        ]
        if self.words or self.chars:
            chars = list(self._chars(tokens))
            if self.words:
                columns.append([_structs("word", words_of(row)) for row in chars])
            if self.chars:
                columns.append([_structs("char", (one for one in row if one.text)) for row in chars])
        return columns

    def _chars(self, tokens: CTCTokens) -> Iterator[list[Span]]:
        """Yield each row's characters in their order; what stands between words has no text."""
        written = self.tokenizer.written_characters
        starts = (tokens.first_frames * self.frame_seconds).tolist()
        ends = ((tokens.last_frames + 1) * self.frame_seconds).tolist()
        scores = np.exp(tokens.token_scores, dtype=np.float64).tolist()  # in float32 it depends on the place in a batch
        ids = tokens.flat_ids.tolist()
        for row in tokens.rows():
            yield [
                Span(text, start, end, score)
                for text, start, end, score in zip(written(ids[row]), starts[row], ends[row], scores[row], strict=True)
            ]


def _structs(name: str, spans: Iterable[Span]) -> Spans:
    return [{name: one.text, "start": one.start, "end": one.end, "score": one.score} for one in spans]


def _flat(column: "pa.ChunkedArray[Any]") -> npt.NDArray[Any]:
    """Join the lists of a column."""
    lists = cast("pa.ListArray[Any]", column.combine_chunks())
    return np.array(lists.flatten())
