"""Transcripts from the frames of CTC models, with times of words and characters."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import compress, groupby
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.capabilities import Capability
from raysp.ops.rows import stretches
from raysp.text.greedy_ctc import CTCTokens, best_frames, collapsed
from raysp.text.times import Span, is_mark, times_of_word, words_of

if TYPE_CHECKING:
    from raysp.crossing import Array
    from raysp.models.tokenizers.named_tokenizers import CTCTokenizer
    from raysp.ops.forward import Forward, Rows, Selected

Spans = list[dict[str, object]]


class StretchText(NamedTuple):
    """The columns of a stretch, with times from its start."""

    columns: tuple[object, ...]
    num_tokens: int
    start: float
    """Seconds from the start of the recording."""


@dataclass(eq=False)
class Transcribing:
    """Op for text and score of each recording, and optionally the times of its words and characters.

    For a window of a longer row it stages the best token of each frame that the window owns. `join` decodes the text
    from the frames of all windows, with the same arithmetic, in a process without torch.

    Attributes:
        schema: columns of text and score, then optionally of words and characters.
        staged: staged columns of a window of a longer row: token ids and log-probabilities of its frames.
        tokenizer: tokenizer that converts ids to text; its padding token is the blank.
        frame_seconds: time between frames.
        words: whether to return words.
        chars: whether to return characters.
    """

    schema: pa.Schema
    staged: pa.Schema
    tokenizer: "CTCTokenizer"
    _: KW_ONLY
    frame_seconds: float
    words: bool = False
    chars: bool = False
    layers: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self.blank = self.tokenizer.pad_token_id
        self.begins_words = _begins_words(self.tokenizer)
        self.marks = _marks(self.tokenizer)

    def select(self, forward: "Forward") -> "Selected":
        frames = best_frames(forward.heads[Capability.CTC].logits)
        return {"ids": frames.ids.int(), "log_probs": frames.log_probs}

    def columns(self, arrays: "Mapping[str, Array]", rows: "Rows") -> list[Sequence[object]]:
        ids_BT, log_probs_BT = arrays["ids"], arrays["log_probs"]
        # The text of a single part is unused, so its frames are masked out.
        tokens = collapsed(ids_BT, log_probs_BT, frames_of_whole_rows(rows), blank=self.blank)
        return [
            *map(rows.whole, self.texts(tokens)),
            *(owned_values(values_BT, rows) for values_BT in (ids_BT, log_probs_BT)),
        ]

    def empty(self) -> tuple[object, ...]:
        return ("", None, *([] for _ in self.schema.names[2:]))

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        parts = [
            self._of_stretch(*stretch) for stretch in stretches(windows, list_lengths(windows, self.staged.names[-1]))
        ]
        return in_a_row(parts, len(self.schema))

    def _of_stretch(self, stretch: pa.Table, frame: int) -> StretchText:
        ids, log_probs = (flat(stretch.column(name)) for name in self.staged.names)
        tokens = collapsed(ids[None], log_probs[None], [len(ids)], blank=self.blank)
        columns = tuple(column[0] for column in self.texts(tokens))
        return StretchText(columns, int(tokens.counts[0]), frame * self.frame_seconds)

    def texts(
        self, tokens: CTCTokens, times: Sequence[npt.NDArray[np.float64]] | None = None
    ) -> list[Sequence[object]]:
        """Return the columns of text and score, and of words and characters if enabled.

        Args:
            tokens: the tokens.
            times: start and end of each token in frames; None: from its first frame to the end of its last frame.
        """
        columns: list[Sequence[object]] = [
            self.tokenizer.decode_collapsed_rows(tokens.flat_ids, tokens.counts),
            tokens.score_list(),
        ]
        if self.words or self.chars:
            chars = list(self._chars(tokens, times or (tokens.first_frames, tokens.last_frames + 1)))
            if self.words:
                columns.append([_structs("word", words_of(row, self.tokenizer.joint)) for row in chars])
            if self.chars:
                columns.append([_structs("char", (char for char in row if char.text)) for row in chars])
        return columns

    def _chars(self, tokens: CTCTokens, times: Sequence[npt.NDArray[Any]]) -> Iterator[list[Span]]:
        """Yield each row's characters, or its word pieces, in order; separators of words have an empty text."""
        written, begins_words = self.tokenizer.written_characters, self.begins_words
        unwritten = self.tokenizer.unwritten_ids
        starts, ends = ((frames * self.frame_seconds).tolist() for frames in times)
        scores = np.exp(tokens.token_scores, dtype=np.float64).tolist()  # float32 depends on the place in a batch
        ids = tokens.flat_ids.tolist()
        for row in tokens.rows():
            spans = [
                Span(text, start, end, score)
                for text, start, end, score in zip(written(ids[row]), starts[row], ends[row], scores[row], strict=True)
            ]
            of_row = ids[row]
            if not unwritten.isdisjoint(of_row):  # they would divide words, as tokens without a text do
                is_kept = [index not in unwritten for index in of_row]
                spans, of_row = list(compress(spans, is_kept)), list(compress(of_row, is_kept))
            separated = _separated(spans, of_row, begins_words) if begins_words else spans
            yield separated if self.marks.isdisjoint(of_row) else _with_silent_marks(separated)


def frames_of_whole_rows(rows: "Rows") -> list[int]:
    """Return the number of frames of each row that is one window, 0 for windows of longer rows."""
    return [0 if part else count for part, count in zip(rows.parts, rows.lengths.frames, strict=True)]


def owned_values(values: npt.NDArray[Any], rows: "Rows") -> list[object]:
    """Return the concatenated values of the frames that each window of a longer row owns; else None."""
    return [
        None if part is None else of_window[slice(*part)].ravel()
        for part, of_window in zip(rows.parts, values, strict=True)
    ]


def _begins_words(tokenizer: "CTCTokenizer") -> frozenset[int]:
    """Return the ids of tokens that begin a word if no token separates words: all phonemes do."""
    if tokenizer.joint and tokenizer.word_delimiter_token not in tokenizer.encoder:
        return frozenset(tokenizer.encoder.values())
    return tokenizer.begins_words


def _marks(tokenizer: "CTCTokenizer") -> frozenset[int]:
    """Return the ids of marks of punctuation; phonemes have none."""
    ids = [] if tokenizer.joint else sorted(tokenizer.get_vocab().values())
    return frozenset(index for index, text in zip(ids, tokenizer.written_characters(ids), strict=True) if is_mark(text))


def _with_silent_marks(spans: Iterable[Span]) -> list[Span]:
    """Return spans with the punctuation marks of each word at zero duration."""
    retimed: list[Span] = []
    for _, group in groupby(spans, key=lambda span: bool(span.text)):
        chars = list(group)
        times = times_of_word([span.text for span in chars], [(span.start, span.end) for span in chars])
        retimed += [span._replace(start=start, end=end) for span, (start, end) in zip(chars, times, strict=True)]
    return retimed


def _separated(spans: Iterable[Span], ids: Iterable[int], begins_words: Container[int]) -> list[Span]:
    """Return spans with an empty span before each span that begins a word."""
    separated: list[Span] = []
    for span, index in zip(spans, ids, strict=True):
        if index in begins_words and span.text:
            separated.append(span._replace(text=""))
        separated.append(span)
    return separated


def in_a_row(parts: Sequence[StretchText], num_columns: int) -> tuple[object, ...]:
    """Join the first columns of the stretches of a row: text and score, then lists with times.

    A word never spans two stretches. The score is the mean over the tokens of all stretches.
    """
    if len(parts) == 1 and parts[0].start == 0:
        return parts[0].columns[:num_columns]
    columns: list[object] = [" ".join(text for part in parts if (text := str(part.columns[0]))), _mean_score(parts)]
    for place in range(2, num_columns):
        spans = [(cast("Spans", part.columns[place]), part.start) for part in parts]
        columns.append([_later(span, start) for stretch, start in spans for span in stretch])
    return tuple(columns)


def _mean_score(parts: Sequence[StretchText]) -> float | None:
    scored = [part for part in parts if part.num_tokens]
    total = sum(cast("float", part.columns[1]) * part.num_tokens for part in scored)
    return total / sum(part.num_tokens for part in scored) if scored else None


def _later(span: dict[str, object], seconds: float) -> dict[str, object]:
    times = {part: cast("float", span[part]) + seconds for part in ("start", "end")}
    return {**span, **times}


def list_lengths(windows: pa.Table, name: str) -> Sequence[int]:
    """Return the lengths of the lists of a column."""
    lists = cast("pa.ListArray[Any]", windows.column(name).combine_chunks())
    return cast("list[int]", lists.value_lengths().to_pylist())


def _structs(name: str, spans: Iterable[Span]) -> Spans:
    return [{name: span.text, "start": span.start, "end": span.end, "score": span.score} for span in spans]


def flat(column: "pa.ChunkedArray[Any]") -> npt.NDArray[Any]:
    """Return the concatenated lists of a column."""
    lists = cast("pa.ListArray[Any]", column.combine_chunks())
    return np.array(lists.flatten())
