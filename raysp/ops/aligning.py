"""Forced alignment: times of the words of a text, and how well the text fits its recording."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysp.capabilities import Capability
from raysp.crossing import Array, send
from raysp.models.tokenizers.named_tokenizers import CTCTokenizer
from raysp.ops.forward import Forward, Rows, Selected, StagingOp
from raysp.ops.late_steps import RESULT, carried_values
from raysp.ops.rows import stretches
from raysp.ops.transcribing import flat, list_lengths
from raysp.text.alignment import FLOOR, Alignment, Target, align
from raysp.text.error_rates import Language
from raysp.text.spelling import Letters, PhonemeSpelling, Spelling, Spelt
from raysp.text.times import times_of_word

Struct = dict[str, Any]
"""A word or character ("char") with "start" and "end" in seconds and a "score"; None if the vocabulary lacks it.

A wildcard has times alone.
"""
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(eq=False)
class Aligning(StagingOp):
    """Op that aligns a text, a source column or an earlier output, with the frames of a CTC head.

    For each frame it selects the log-probabilities of the blank, of the tokens of the text, and of the best token. A
    window of a longer row stages the values of the frames that it owns. `join` aligns the text with the frames of all
    windows.

    Attributes:
        schema: columns of score and number of characters left out, then optionally of words and characters.
        staged: staged column of a window of a longer row, the log-probabilities.
        tokenizer: tokenizer with the vocabulary; its padding token is the blank.
        column: column with the texts.
        is_result: whether an earlier output produces the column. The text is then unavailable on the device, so all
            tokens are selected.
        vocab_size: tokens of the head.
        frame_seconds: time between frames.
        wildcard: whether other speech may occur before, between and after the words.
        unknown_as_wildcard: whether spoken characters without a token are aligned as wildcards.
        case_rules: language whose case rules hold; None: the rules that most languages share.
    """

    tokenizer: CTCTokenizer
    _: KW_ONLY
    column: str
    vocab_size: int
    frame_seconds: float
    wildcard: bool = False
    unknown_as_wildcard: bool = False
    case_rules: Language | None = None
    is_result: bool = False

    def __post_init__(self) -> None:
        self.blank = self.tokenizer.pad_token_id
        self.spelling = spelling_of(self.tokenizer, self.vocab_size, self.case_rules, is_result=self.is_result)

    def select(self, forward: Forward) -> Selected:
        log_probs_BTV = forward.heads[Capability.CTC].logits.float().log_softmax(-1)
        if self.unknown_as_wildcard:
            log_probs_BTV = _with_best_of(log_probs_BTV, (self.blank, self.spelling.delimiter))
        spelt: list[Spelt | None] = [None] * len(log_probs_BTV)
        if not self.is_result:
            spelt = [self._spelt(text) for text in forward.rows.source[self.column]]
        kept = [self._kept(of_row) for of_row in spelt]
        ids_BK = np.full((len(kept), max(map(len, kept))), self.blank, np.int64)
        for ids_K, ids in zip(ids_BK, kept, strict=True):
            ids_K[: len(ids)] = ids
        [places_BK] = send(log_probs_BTV.device, ids_BK)
        chosen_BTK = log_probs_BTV.gather(-1, places_BK[:, None].expand(-1, log_probs_BTV.shape[1], -1))
        return {"log probs": torch.cat([chosen_BTK, log_probs_BTV.amax(-1, keepdim=True)], -1), "spelt": spelt}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        values_BTK = arrays["log probs"]
        spelt = cast("list[Spelt | None]", arrays["spelt"])
        if self.is_result:
            texts = rows.results[self.column]
            spelt = [self._spelt(text) if part is None else None for text, part in zip(texts, rows.parts, strict=True)]
        whole = [of_row if part is None else None for of_row, part in zip(spelt, rows.parts, strict=True)]
        targets = [Target(()) if of_row is None else self._target(of_row) for of_row in whole]
        alignments = self._aligned(values_BTK, rows.lengths.frames, targets)
        values = [
            self.empty() if of_row is None else self._row(of_row, alignment)
            for of_row, alignment in zip(whole, alignments, strict=True)
        ]
        return [*zip(*values, strict=True), self._staged(values_BTK, spelt, rows)]

    def _staged(self, values_BTK: Array, spelt: Sequence[Spelt | None], rows: Rows) -> list[object]:
        """Return the log-probabilities of the frames that each window of a longer row owns, frame by frame."""
        return [
            None
            if part is None or (of_row is None and not self.is_result)
            else values_TK[slice(*part), [*range(len(self._kept(of_row))), -1]].ravel()
            for values_TK, of_row, part in zip(values_BTK, spelt, rows.parts, strict=True)
        ]

    def _target(self, spelt: Spelt) -> Target:
        """Return the tokens of a text, numbered by their places in `_kept`."""
        places = {index: place for place, index in enumerate(self._kept(spelt))}
        target = spelt.target(wildcard=self.wildcard)
        ids = [places[index] for index in target.ids]
        separator, wildcard = (
            token if token is None else places.get(token) for token in (target.separator, target.wildcard)
        )
        return replace(target, ids=ids, separator=separator, wildcard=wildcard)

    def _aligned(
        self, values_BTK: Array, num_frames: Sequence[int], targets: Sequence[Target]
    ) -> list[Alignment | None]:
        """Return the paths of targets through frames, whose last value belongs to the best token."""
        values = torch.from_numpy(values_BTK)
        return align(values[..., :-1], num_frames, targets, blank=0, best=values[..., -1])

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        texts = windows.column(f"{RESULT}{self.column}").to_pylist() if self.is_result else None
        spelt = self._spelt((texts or carried_values(windows, self.column))[-1])
        if spelt is None:
            return self.empty()
        kept = self._kept(spelt)
        pauses = [place for place, index in enumerate(kept) if index in (self.blank, spelt.delimiter)]
        values, frames = self._joined(windows, len(kept) + 1, pauses)
        [alignment] = self._aligned(values[None], [len(values)], [self._target(spelt)])
        if alignment is not None:
            firsts, lasts = alignment.first_frames, alignment.last_frames
            alignment = replace(alignment, first_frames=frames[firsts], last_frames=frames[lasts])
        return self._row(spelt, alignment)

    def _joined(self, windows: pa.Table, num_values: int, pauses: Sequence[int]) -> tuple[Array, Ints]:
        """Return the frames of a row, (T, `num_values`), and their numbers in the recording.

        A skipped part of the recording becomes one frame that is certainly a pause. In neighbouring frames whose best
        token is a pause, any pause is equally likely. `pauses` are the indices of the blank and the word separator.
        """
        gap = np.full((1, num_values), FLOOR, np.float32)
        gap[0, [*pauses, -1]] = 0.0
        values: list[npt.NDArray[np.float32]] = []
        frames: list[Ints] = []
        until = 0
        [name] = self.staged.names
        for stretch, first in stretches(windows, [length // num_values for length in list_lengths(windows, name)]):
            part = flat(stretch.column(name)).reshape(-1, num_values)
            if values and first > until + 1:
                values[-1] = _with_any_pause(values[-1][::-1], pauses)[::-1]
                part = _with_any_pause(part, pauses)
                values.append(gap)
                frames.append(np.array([first - 1]))
            values.append(part)
            frames.append(first + np.arange(len(part)))
            until = first + len(part)
        return np.concatenate(values), np.concatenate(frames)

    def _spelt(self, text: object) -> Spelt | None:
        if text is None:
            return None
        spelt = self.spelling(str(text))
        return spelt.with_wildcards(self.vocab_size) if self.unknown_as_wildcard else spelt

    def _kept(self, spelt: Spelt | None) -> list[int]:
        """Return the ids whose log-probabilities windows stage, the blank first."""
        if self.is_result or spelt is None:
            ids = {*range(self.vocab_size + self.unknown_as_wildcard)}
        else:
            ids = {*spelt.target().ids} | {spelt.delimiter} - {None}
        return [self.blank, *sorted(ids - {self.blank})]

    def _row(self, spelt: Spelt, alignment: Alignment | None) -> tuple[object, ...]:
        """Return the columns of a row; without a path, null except for the number of skipped characters."""
        if alignment is None and any(word.ids for word in spelt.words):
            return (None, spelt.num_skipped, *(None for _ in self.schema.names[2:]))
        spans: dict[str, list[Struct]] = {"words": [], "chars": []}
        for word, letters in self._timed(spelt, alignment):
            spans["words"].append(word)
            spans["chars"] += letters
        score = None if alignment is None else alignment.score
        return (score, spelt.num_skipped, *(spans[name.rpartition("_")[2]] for name in self.schema.names[2:]))

    def _timed(self, spelt: Spelt, alignment: Alignment | None) -> Iterator[tuple[Struct, list[Struct]]]:
        """Yield each word with its characters."""
        for word, places in zip(spelt.words, spelt.places(), strict=True):
            letters = [
                self._letter(letter, place, alignment) if alignment and letter.ids else _struct("char", letter.text)
                for letter, place in zip(word.letters, places, strict=True)
            ]
            timed = [letter for letter in letters if letter["start"] is not None]
            if not isinstance(self.spelling, PhonemeSpelling):
                _silence_marks(timed)
            if timed:
                scores = [letter["score"] for letter in timed if letter["score"] is not None]
                score = sum(scores) / len(scores) if scores else None
                yield _struct("word", word.text, timed[0]["start"], timed[-1]["end"], score), letters
            else:
                yield _struct("word", word.text), letters

    def _letter(self, letters: Letters, place: slice, alignment: Alignment) -> Struct:
        start = int(alignment.first_frames[place.start]) * self.frame_seconds
        end = (int(alignment.last_frames[place.stop - 1]) + 1) * self.frame_seconds
        score = float(np.exp(alignment.token_scores[place], dtype=np.float64).mean())
        return _struct("char", letters.text, start, end, None if letters.num_skipped else score)


def _struct(
    kind: str, text: str, start: float | None = None, end: float | None = None, score: float | None = None
) -> Struct:
    return {kind: text, "start": start, "end": end, "score": score}


def _with_best_of(log_probs_BTV: torch.Tensor, pauses: Sequence[int | None]) -> torch.Tensor:
    """Append the log-probability of the best token that is no pause."""
    spoken_BTV = log_probs_BTV.clone()
    for token in pauses:
        if token is not None:
            spoken_BTV[..., token] = -torch.inf
    return torch.cat([log_probs_BTV, spoken_BTV.amax(-1, keepdim=True)], -1)


def _silence_marks(letters: Sequence[Struct]) -> None:
    """Set the punctuation marks among the characters of a word to zero duration."""
    times = times_of_word(
        [letter["char"] for letter in letters], [(letter["start"], letter["end"]) for letter in letters]
    )
    for letter, (start, end) in zip(letters, times, strict=True):
        letter.update(start=start, end=end)


def _with_any_pause(values: npt.NDArray[np.float32], pauses: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return frames in which, up to the first whose best token is no pause, all pauses are equally likely."""
    highest = values[:, pauses].max(1)
    num_frames = int(np.append(highest < values[:, -1], True).argmax())
    changed = values.copy()
    changed[:num_frames, pauses] = highest[:num_frames, None]
    return changed


def spelling_of(
    tokenizer: CTCTokenizer, vocab_size: int, language: Language | None = None, *, is_result: bool = False
) -> Spelling | PhonemeSpelling:
    """Return the spelling of texts in the tokens of a head; `is_result`: the head produced the texts."""
    special = {*tokenizer.all_special_tokens}
    ids = {token: index for token, index in tokenizer.encoder.items() if index < vocab_size}
    text = tokenizer.word_delimiter_token
    delimiter = ids.get(text or "")
    vocabulary = {token: index for token, index in ids.items() if token not in special}
    if tokenizer.joint:
        vocabulary.pop(text or "", None)
        return PhonemeSpelling(vocabulary, delimiter, delimiter_text=text, refuses_letters=not is_result)
    return Spelling(vocabulary, delimiter, language)
