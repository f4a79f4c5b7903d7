"""Transcripts from the frames of CTC models, with times of words and characters, and those of text decoders."""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.capabilities import Capability
from raysp.crossing import constant, fetch
from raysp.models.base.outputs import ModelOutput
from raysp.models.labelled_passes import Writer, Written
from raysp.models.tokenizers.described import CTCTokenizer, is_language, token_of
from raysp.ops.forward import Forward
from raysp.ops.rows import PLACE, Stretch, stretches
from raysp.text.greedy_ctc import CTCTokens, best_frames, collapsed
from raysp.text.times import Span, is_mark, times_of_word, words_of

if TYPE_CHECKING:
    from raysp.crossing import Steps
    from raysp.models.tokenizers.text import TextTokenizer

Spans = list[dict[str, object]]


class StretchText(NamedTuple):
    """The columns of a stretch, with times from its start."""

    columns: tuple[object, ...]
    num_tokens: int
    start: float
    """Seconds from the start of the recording."""


class Transcribing:
    """Op for text and score of each recording, and optionally the times of its words and characters.

    For a window of a longer row it stages the best token of each frame that the window owns. `join` decodes the text
    from the frames of all windows, with the same arithmetic, in a process that does without torch.

    Args:
        schema: columns of text and score, then optionally of words and characters.
        staged: staged columns of a window of a longer row: token ids and log-probabilities of its frames.
        tokenizer: tokenizer that converts ids to text; its padding token is the blank.
        frame_seconds: time between frames.
        words: whether to return words.
        chars: whether to return characters.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        tokenizer: CTCTokenizer,
        *,
        frame_seconds: float,
        words: bool = False,
        chars: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.blank = tokenizer.pad_token_id
        self.begins_words = _begins_words(tokenizer)
        self.marks = _marks(tokenizer)
        self.schema = schema
        self.staged = staged
        self.frame_seconds = frame_seconds
        self.words = words
        self.chars = chars

    def __call__(self, forward: "Forward") -> list[Sequence[object]]:
        """Return the columns of `schema`, then those of `staged`, one value per window."""
        from raysp.crossing import alone

        return alone(self.steps(forward))

    def steps(self, forward: "Forward") -> "Steps[list[Sequence[object]]]":
        """Yield the tensors whose values are needed on the host, then return the result of `__call__`."""
        frames = best_frames(forward.of(Capability.CTC)["logits"])
        ids_BT, log_probs_BT = yield [frames.ids.int(), frames.log_probs]
        is_part = [part is not None for part in forward.parts]
        # The text of a part alone is not used, so its frames are masked out.
        num_frames = [0 if part else count for part, count in zip(is_part, forward.lengths.frames, strict=True)]
        tokens = collapsed(ids_BT, log_probs_BT, num_frames, blank=self.blank)
        if not any(is_part):
            nothing: list[Sequence[object]] = [[None] * len(is_part) for _ in self.staged]
            return [*self.columns(tokens), *nothing]
        columns: list[Sequence[object]] = [
            [None if part else value for part, value in zip(is_part, column, strict=True)]
            for column in self.columns(tokens)
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
        """Return the values of a recording shorter than one frame: an empty text without a score."""
        return ("", None, *([] for _ in self.schema.names[2:]))

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema` of one row, from the `staged` columns of its windows in order."""
        found = [
            self._of_stretch(stretch) for stretch in stretches(windows, list_lengths(windows, self.staged.names[-1]))
        ]
        return in_a_row(found, len(self.schema))

    def _of_stretch(self, stretch: Stretch) -> StretchText:
        ids, log_probs = (flat(stretch.windows.column(name)) for name in self.staged.names)
        tokens = collapsed(ids[None], log_probs[None], [len(ids)], blank=self.blank)
        columns = tuple(column[0] for column in self.columns(tokens))
        return StretchText(columns, int(tokens.counts[0]), stretch.frame * self.frame_seconds)

    def columns(
        self, tokens: CTCTokens, times: Sequence[npt.NDArray[np.float64]] | None = None
    ) -> list[Sequence[object]]:
        """Return the columns of text and score, and of words and characters if asked for.

        Args:
            tokens: the tokens.
            times: start and end of each token in frames; None: from its first frame to the end of its last one.
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
                columns.append([_structs("char", (one for one in row if one.text)) for row in chars])
        return columns

    def _chars(self, tokens: CTCTokens, times: Sequence[npt.NDArray[Any]]) -> Iterator[list[Span]]:
        """Yield each row's characters, or its word pieces, in order; separators of words have an empty text."""
        written, begins_words = self.tokenizer.written_characters, self.begins_words
        starts, ends = ((frames * self.frame_seconds).tolist() for frames in times)
        scores = np.exp(tokens.token_scores, dtype=np.float64).tolist()  # float32 depends on the place in a batch
        ids = tokens.flat_ids.tolist()
        for row in tokens.rows():
            spans = [
                Span(text, start, end, score)
                for text, start, end, score in zip(written(ids[row]), starts[row], ends[row], scores[row], strict=True)
            ]
            separated = _separated(spans, ids[row], begins_words) if begins_words else spans
            yield separated if self.marks.isdisjoint(ids[row]) else _with_silent_marks(separated)


def _begins_words(tokenizer: CTCTokenizer) -> frozenset[int]:
    """Return the ids of tokens that begin a word where no token stands between words: all phonemes do."""
    if tokenizer.joint and tokenizer.word_delimiter_token not in tokenizer.encoder:
        return frozenset(tokenizer.encoder.values())
    return tokenizer.begins_words


def _marks(tokenizer: CTCTokenizer) -> frozenset[int]:
    """Return the ids of marks of punctuation; phonemes have none."""
    ids = [] if tokenizer.joint else sorted(tokenizer.get_vocab().values())
    return frozenset(index for index, text in zip(ids, tokenizer.written_characters(ids), strict=True) if is_mark(text))


def _with_silent_marks(spans: Iterable[Span]) -> list[Span]:
    """Return spans in which the marks of each word have no length."""
    found: list[Span] = []
    for _, group in groupby(spans, key=lambda one: bool(one.text)):
        chars = list(group)
        times = times_of_word([one.text for one in chars], [(one.start, one.end) for one in chars])
        found += [one._replace(start=start, end=end) for one, (start, end) in zip(chars, times, strict=True)]
    return found


def _separated(spans: Iterable[Span], ids: Iterable[int], begins_words: Container[int]) -> list[Span]:
    """Return spans with one of an empty text before each that begins a word."""
    found: list[Span] = []
    for span, index in zip(spans, ids, strict=True):
        if index in begins_words and span.text:
            found.append(span._replace(text=""))
        found.append(span)
    return found


def in_a_row(parts: Sequence[StretchText], num_columns: int) -> tuple[object, ...]:
    """Return the first columns of a row, from those of its stretches: text and score, then lists with times.

    The words of two stretches are never one word. The score is the mean over the tokens of all stretches.
    """
    if len(parts) == 1 and parts[0].start == 0:
        return parts[0].columns[:num_columns]
    columns: list[object] = [" ".join(text for part in parts if (text := str(part.columns[0]))), _mean_score(parts)]
    for place in range(2, num_columns):
        spans = [(cast("Spans", part.columns[place]), part.start) for part in parts]
        columns.append([_later(span, start) for found, start in spans for span in found])
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
    return [{name: one.text, "start": one.start, "end": one.end, "score": one.score} for one in spans]


def flat(column: "pa.ChunkedArray[Any]") -> npt.NDArray[Any]:
    """Return the concatenated lists of a column."""
    lists = cast("pa.ListArray[Any]", column.combine_chunks())
    return np.array(lists.flatten())


ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False, "output_scores": False}
"""Options that are fixed for labels and override those of a checkpoint."""


@dataclass(frozen=True)
class Prompt:
    """Tokens with which texts begin."""

    options: Mapping[str, object]
    """Options of `generate`: the start token, if it is that of the language."""
    ids: tuple[int, ...]
    """Tokens after the start token."""

    @property
    def num_given(self) -> int:
        """Number of tokens that generation starts from; a single one after the start token is an option instead."""
        return 1 + len(self.ids) if len(self.ids) > 1 else 1

    @classmethod
    def of(cls, tokenizer: "TextTokenizer", start: object, *, language: str | None, task: str | None) -> Self:
        """Return the tokens of a language and a task.

        Args:
            tokenizer: tokenizer of the decoder.
            start: start token of the checkpoint, which mBART replaces by that of the language.
            language: name of the language, or its token; None: that of the checkpoint.
            task: the same of a task.

        Raises:
            CheckpointError: the vocabulary has no such token, or several.
        """
        vocabulary, special = tokenizer.get_vocab(), tokenizer.all_special_tokens
        names = {"language": language, "task": task}
        ids = [token_of(name, field, vocabulary, special) for field, name in names.items() if name is not None]
        if language is not None and isinstance(start, int) and is_language(tokenizer.convert_ids_to_tokens(start)):
            return cls({"decoder_start_token_id": ids[0]}, tuple(ids[1:]))
        return cls({}, tuple(ids))


class Writing:
    """Op for the text of each recording and the mean log-probability of its tokens.

    For a window of a longer row it stages the text. `join` concatenates the texts of all windows, which end at quiet
    points.

    Args:
        schema: columns of text and score, and of words and the detected language if they are asked for.
        staged: staged columns of a window of a longer row: text, sum of log-probabilities, number of tokens; words, and
            probabilities of languages.
        model: an encoder with a text decoder; None if only `join` is called.
        tokenizer: tokenizer that converts ids to text.
        options: options of `generate`, and `seed`.
        prompt: tokens with which each text begins, which count neither in the text nor in the score.
        write: text decoder of a model that raysp does not run itself, in place of all these.
        frame_seconds: seconds of a frame, in which the places of windows are counted.
        words: whether there are words.
        languages: those among which the language is detected; None: it is not.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        model: Any = None,  # noqa: ANN401 - any of them
        tokenizer: Any = None,  # noqa: ANN401 - any text tokenizer
        options: Mapping[str, object] | None = None,
        prompt: "Prompt | None" = None,
        write: Writer | None = None,
        frame_seconds: float = 0.0,
        words: bool = False,
        languages: Sequence[str] | None = None,
    ) -> None:
        self.frame_seconds = frame_seconds
        self.words = words
        self.languages = languages
        self.schema = schema
        self.staged = staged
        self.model = model
        self.tokenizer = tokenizer
        self.write = write or self._write
        self.is_prompted = prompt is not None
        given, self.prompt = ({}, ()) if prompt is None else (prompt.options, prompt.ids)
        self.options = {**(options or {}), **given, **ONE_TEXT}
        if len(self.prompt) == 1:
            self.options["forced_bos_token_id"] = self.prompt[0]
        self.seed = self.options.pop("seed", 0)

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the columns of `schema`, then those of `staged`, one value per window."""
        rows = self.write(forward.encoded, forward.features, forward.places)
        no_label, no_part = (None,) * len(self.schema), (None,) * len(self.staged)
        values = [
            (*no_label, *self._part(row)) if part is not None else (*self._label(*self._part(row)), *no_part)
            for row, part in zip(rows, forward.parts, strict=True)
        ]
        return [list(column) for column in zip(*values, strict=True)]

    def _write(self, encoded: ModelOutput, features: Mapping[str, Tensor], places: Sequence[str]) -> list[Written]:
        mask = features.get("attention_mask")
        options = dict(self.options)
        if options.get("do_sample"):
            options["generators"] = [self._generator(place) for place in places]
        if len(self.prompt) > 1:
            options["decoder_input_ids"] = constant(self.prompt, self.model.device).expand(len(places), -1)
        ids_BL = self.model.generate(encoder_outputs=encoded, attention_mask=mask, **options)
        # Scores by one more pass: cheap beside generation, and alike for beam search, sampling and greedy search.
        logits_BLV = self.model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=ids_BL[:, :-1]).logits
        log_probs_BL = logits_BLV.float().log_softmax(-1).gather(-1, ids_BL[:, 1:, None])[:, :, 0]
        emitted_BL = self._emitted(ids_BL)
        log_probs_BL = log_probs_BL.masked_fill(~emitted_BL, 0.0)
        # A token of a language need not be a special one, which are left out anyhow.
        written_BL = ids_BL[:, 1 + len(self.prompt) :] if self.is_prompted else ids_BL
        written, totals, counts = fetch(written_BL, log_probs_BL.sum(1), emitted_BL.sum(1))
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [Written(*one) for one in zip(texts, totals.tolist(), counts.tolist(), strict=True)]

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame: an empty text without a score."""
        return self._label("", 0.0, 0, [], [])

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return text and score of one row, from those of its windows in order.

        Probabilities of languages are means over the windows.
        """
        texts, totals, counts, *more = (
            cast("list[Any]", windows.column(name).to_pylist()) for name in self.staged.names
        )
        text = " ".join(stripped for one in texts if (stripped := one.strip()))
        spans = [
            {**word, "start": start + word["start"], "end": start + word["end"]}
            for start, row in zip(self._starts(windows), more[0] if self.words else (), strict=False)
            for word in row
        ]
        languages = np.mean(more[-1], axis=0).tolist() if self.languages else []
        return self._label(text, sum(totals), sum(counts), spans, languages)

    def _part(self, row: Written) -> tuple[Any, ...]:
        words = ([one._asdict() for one in row.words],) if self.words else ()
        return (row.text, row.log_prob, row.num_tokens, *words, *((list(row.languages),) if self.languages else ()))

    def _label(self, text: str, total: float, count: int, *more: Any) -> tuple[object, ...]:  # noqa: ANN401
        words = more[:1] if self.words else ()
        language = (self._detected(more[-1]),) if self.languages else ()
        return (text.strip(), total / count if count else None, *words, *language)

    def _detected(self, probabilities: Sequence[float]) -> Mapping[str, object] | None:
        """Return the most probable language."""
        if not probabilities or self.languages is None:
            return None
        score = max(probabilities)
        return {"language": self.languages[probabilities.index(score)], "score": score}

    def _starts(self, windows: pa.Table) -> list[float]:
        """Return the seconds of a row at which its windows start; those without a place follow each other."""
        if PLACE in windows.column_names:
            return [frame * self.frame_seconds for frame in cast("list[int]", windows.column(PLACE).to_pylist())]
        seconds = cast("list[float]", windows.column("seconds").to_pylist())
        return [0.0, *accumulate(seconds[:-1])]

    def _generator(self, place: str) -> torch.Generator:
        # Seven bytes, which fit into the 63 bits of a positive seed.
        digest = hashlib.blake2b(f"{self.seed}|{place}".encode(), digest_size=7).digest()
        return torch.Generator(self.model.device).manual_seed(int.from_bytes(digest, "little"))

    def _emitted(self, ids_BL: Tensor) -> Tensor:
        """Return a mask of the tokens that count: after the start token up to the first end, without the prompt."""
        is_end_BL = torch.isin(ids_BL[:, 1:], constant(tuple(self._ends()), ids_BL.device))
        emitted_BL = (is_end_BL.int().cumsum(1) - is_end_BL.int()) == 0  # the first end counts
        emitted_BL[:, : len(self.prompt)] = False
        return emitted_BL

    def _ends(self) -> list[int]:
        """Return the ids that end a text; only padding follows them."""
        config = self.model.generation_config
        end: Any = self.options.get("eos_token_id", config.eos_token_id)
        ids = [] if end is None else list(end) if isinstance(end, list | tuple) else [end]
        pad: Any = self.options.get("pad_token_id", config.pad_token_id)
        return [*ids, *([] if ids or pad is None else [pad])]
