"""Forced alignment: the times of the words of a given text, and how well it fits its recording."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.capabilities import Capability
from raysp.columns import SECONDS
from raysp.crossing import Array, fetch, send
from raysp.models.loading import LoadedCheckpoint
from raysp.models.tokenizers.written import CTCTokenizer
from raysp.ops.joining import RESULT
from raysp.ops.labelling import Forward
from raysp.ops.late_steps import carried_values
from raysp.ops.places import stretches
from raysp.ops.transcribing import flat, list_lengths
from raysp.text.alignment import FLOOR, Alignment, Target, align
from raysp.text.marks import times_of_word
from raysp.text.normalisation import Language
from raysp.text.spelling import PhonemeSpelling, Spelling, Spelt

Spans = list[dict[str, object]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Timed:
    """A word or character with its times in seconds and its probability; None if the vocabulary lacks it."""

    text: str
    start: float | None = None
    end: float | None = None
    score: float | None = None

    def as_struct(self, name: str) -> dict[str, object]:
        """Return the value for a column of words or characters."""
        return {name: self.text, "start": self.start, "end": self.end, "score": self.score}


@dataclass(frozen=True)
class CTCFrames:
    """The frames of a CTC head for a batch of windows."""

    log_probs_BTV: Tensor
    num_frames: Sequence[int]
    parts: Sequence[tuple[int, int] | None]
    """First and end of the frames that each window of a longer row owns; None for a row that is one window."""
    starts: Sequence[float | None]
    """Seconds from the start of the recording to that of each window, if known."""
    begins: Sequence[int] | None = None
    """First frame of each window, if frames (1, N, V) are end to end; None: they are padded to one length."""

    @classmethod
    def end_to_end(cls, each: "Sequence[CTCFrames]") -> "CTCFrames":
        """Join the frames (1, T, V) of single windows to frames (1, N, V)."""
        widths = [one.log_probs_BTV.shape[1] for one in each]
        return cls(
            torch.cat([one.log_probs_BTV for one in each], 1),
            [count for one in each for count in one.num_frames],
            [part for one in each for part in one.parts],
            [start for one in each for start in one.starts],
            [*itertools.accumulate(widths, initial=0)][:-1],
        )

    def owned(self, window: int) -> Ints:
        """Return the numbers, among the frames of all windows, of those that a window of a longer row owns."""
        first, end = cast("tuple[int, int]", self.parts[window])
        width = self.log_probs_BTV.shape[1]
        begin, most = (window * width, width) if self.begins is None else (self.begins[window], self.num_frames[window])
        return begin + np.arange(first, min(end, most))


def own_frames(forward: Forward) -> CTCFrames:
    """Return the frames of the step's checkpoint."""
    [log_probs_BTV] = forward.made(Capability.CTC, "logits", _log_probs)
    return CTCFrames(log_probs_BTV, forward.lengths.frames, forward.parts, [None] * len(forward.parts))


def _log_probs(logits: Tensor) -> list[Tensor]:
    return [logits.float().log_softmax(-1)]


@dataclass(frozen=True)
class FramesOf:
    """Callable that returns the frames of another checkpoint, for the same windows."""

    loaded: LoadedCheckpoint
    frame_samples: int
    """Samples from one frame of the step's checkpoint to the next; both have the same sample rate."""

    def __call__(self, forward: Forward) -> CTCFrames:
        """Run the other checkpoint's model."""
        missing = self.loaded.summary.min_samples - forward.waves_BS.shape[1]
        waves_BS = torch.nn.functional.pad(forward.waves_BS, (0, max(0, missing)))
        features = self.loaded.feature_extractor.extract(waves_BS, forward.num_samples_B)
        log_probs_BTV = self.loaded.model(**features)["logits"].float().log_softmax(-1)
        num_frames = [max(0, frames) for frames in self.loaded.num_frames(forward.lengths.samples)[0]]
        owners = zip(forward.parts, forward.lengths.frames, num_frames, strict=True)
        seconds = self.frame_samples / self.loaded.sample_rate
        places = forward.speech or [None] * len(forward.parts)
        return CTCFrames(
            log_probs_BTV,
            num_frames,
            [None if part is None else self._owned(part, *counts) for part, *counts in owners],
            [None if place is None else place.frame * seconds for place in places],
        )

    def _owned(self, part: tuple[int, int], of_step: int, num_frames: int) -> tuple[int, int]:
        """Return the frames that begin where those begin that a window owns."""
        first, end = (-(-frame * self.frame_samples // self.loaded.summary.frame_stride) for frame in part)
        return min(first, num_frames), num_frames if part[1] >= of_step else min(end, num_frames)


class Aligning:
    """Op that aligns a text with the frames of a CTC head: of a column of the source, or of an earlier output.

    For a window of a longer row it stages the log-probabilities of the blank, of the tokens that the text has and of
    the best token, of each frame that the window owns. `join` aligns the text with the frames of all windows.

    Args:
        schema: columns of score and number of characters left out, then optionally of words and characters.
        staged: staged columns of a window of a longer row: log-probabilities, and the first frame that it owns and its
            start in seconds if the frames are those of another checkpoint than the step's.
        tokenizer: tokenizer with the vocabulary; its padding token is the blank.
        column: column with the texts.
        is_result: whether it is one of an earlier output, not of the source. Then the text of a longer row is not known
            to its windows, so all tokens are staged.
        vocab_size: tokens of the head.
        frame_seconds: time between frames.
        wildcard: whether other speech may be before, between and behind the words.
        case_rules: language whose case rules hold; None: those that most languages share.
        frames: returns the frames of a batch.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        tokenizer: CTCTokenizer,
        *,
        column: str,
        vocab_size: int,
        frame_seconds: float,
        wildcard: bool = False,
        case_rules: Language | None = None,
        is_result: bool = False,
        frames: Callable[[Forward], CTCFrames] = own_frames,
    ) -> None:
        self.is_result = is_result
        self.vocab_size = vocab_size
        self.frames = frames
        self.schema = schema
        self.staged = staged
        self.column = column
        self.blank = tokenizer.pad_token_id
        self.spelling = spelling_of(tokenizer, vocab_size, case_rules, is_result=is_result)
        self.frame_seconds = frame_seconds
        self.wildcard = wildcard

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the columns of `schema`, then that of `staged`, one value per window."""
        return forward.together(self._columns)

    def _columns(self, forwards: Sequence[Forward]) -> list[list[Sequence[object]]]:
        """Return the columns of each result, of those of a pack on a device together."""
        frames = [self.frames(one) for one in forwards]
        spelt = [[self._spelt(text) for text in self._texts(one)] for one in forwards]
        if not forwards[0].packed_on_device:
            return [self._of_windows(*one) for one in zip(frames, spelt, strict=True)]
        columns = self._of_windows(CTCFrames.end_to_end(frames), [one for [one] in spelt])
        return [[[column[window]] for column in columns] for window in range(len(forwards))]

    def _texts(self, forward: Forward) -> Sequence[object]:
        return (forward.results if self.is_result else forward.columns)[self.column]

    def _of_windows(self, frames: CTCFrames, spelt: Sequence[Spelt | None]) -> list[Sequence[object]]:
        is_whole = [part is None and one is not None for part, one in zip(frames.parts, spelt, strict=True)]
        targets = [
            one.target(wildcard=self.wildcard) if one is not None and whole else Target(())
            for one, whole in zip(spelt, is_whole, strict=True)
        ]
        found = align(frames.log_probs_BTV, frames.num_frames, targets, blank=self.blank, begins=frames.begins)
        values = [
            self._row(one, alignment) if one is not None and whole else self.empty()
            for one, whole, alignment in zip(spelt, is_whole, found, strict=True)
        ]
        return [*zip(*values, strict=True), *self._staged(frames, spelt)]

    def _staged(self, frames: CTCFrames, spelt: Sequence[Spelt | None]) -> list[list[object]]:
        is_staged = [
            part is not None and (self.is_result or one is not None)
            for part, one in zip(frames.parts, spelt, strict=True)
        ]
        firsts = [part[0] if asked and part else None for part, asked in zip(frames.parts, is_staged, strict=True)]
        rows = [row for row, asked in enumerate(is_staged) if asked]
        values: list[object] = [None] * len(spelt)
        for row, found in zip(rows, _staged(frames, rows, [self._kept(spelt[row]) for row in rows]), strict=True):
            values[row] = found
        staged: list[list[object]] = [values, [*firsts], [*frames.starts]]
        return staged[: len(self.staged)]

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame, or without a text: nulls."""
        return tuple(None for _ in self.schema)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema` of one row, from the staged column of its windows in order."""
        given = windows.column(f"{RESULT}{self.column}").to_pylist() if self.is_result else None
        spelt = self._spelt((given or carried_values(windows, self.column))[-1])
        if spelt is None:
            return self.empty()
        kept = self._kept(spelt)
        pauses = [place for place, index in enumerate(kept) if index in (self.blank, spelt.delimiter)]
        values, frames, starts = self._joined(windows, len(kept) + 1, pauses)
        places = {index: place for place, index in enumerate(kept)}
        target = spelt.target(wildcard=self.wildcard)
        separator = None if target.separator is None else places[target.separator]
        local = replace(target, ids=[places[index] for index in target.ids], separator=separator)
        [found] = align(values[..., :-1], [values.shape[1]], [local], blank=0, best=values[..., -1])
        if found is not None:
            firsts, lasts = found.first_frames, found.last_frames
            found = replace(found, first_frames=frames[firsts], last_frames=frames[lasts])
            return self._row(spelt, found, (starts[firsts], starts[lasts]))
        return self._row(spelt, found)

    def _joined(self, windows: pa.Table, num_values: int, pauses: Sequence[int]) -> tuple[Tensor, Ints, Floats]:
        """Return the frames of a row: their values, numbers, and from where in the recording these count, in seconds.

        Where a part of the recording is left out, one frame stands for it, which is certainly a pause. The frames
        beside it in which the best token is a pause may be any: blank, or the separator of words.

        Args:
            windows: the windows of the row.
            num_values: values of a frame; the last one is that of the best token.
            pauses: places of the blank and of the separator of words.
        """
        gap = np.full((1, num_values), FLOOR, np.float32)
        gap[0, [*pauses, -1]] = 0.0
        values: list[npt.NDArray[np.float32]] = []
        frames: list[Ints] = []
        starts: list[Floats] = []
        until = 0.0
        for part, first, start in self._parts(windows, num_values):
            if values and first * self.frame_seconds + start > until + 1.5 * self.frame_seconds:
                values[-1] = _with_any_pause(values[-1][::-1], pauses)[::-1]
                part = _with_any_pause(part, pauses)
                values.append(gap)
                frames.append(np.array([first - 1]))
                starts.append(np.array([start]))
            values.append(part)
            frames.append(first + np.arange(len(part)))
            starts.append(np.full(len(part), start))
            until = (first + len(part)) * self.frame_seconds + start
        return torch.from_numpy(np.concatenate(values)[None]), np.concatenate(frames), np.concatenate(starts)

    def _parts(self, windows: pa.Table, num_values: int) -> Iterator[tuple[npt.NDArray[np.float32], int, float]]:
        """Yield the values of neighbouring frames (T, V), the number of the first one, and where numbers count from."""
        name, *others = self.staged.names
        if not others:
            for stretch in stretches(windows, [count // num_values for count in list_lengths(windows, name)]):
                yield flat(stretch.windows.column(name)).reshape(-1, num_values), stretch.frame, 0.0
            return
        firsts, starts = (cast("list[Any]", windows.column(one).to_pylist()) for one in others)
        passed = 0.0
        for place, (first, start) in enumerate(zip(firsts, starts, strict=True)):
            window = windows.slice(place, 1)
            yield flat(window.column(name)).reshape(-1, num_values), first, passed if start is None else start
            if start is None:
                passed += cast("float", window.column(SECONDS)[0].as_py())

    def _spelt(self, text: object) -> Spelt | None:
        return None if text is None else self.spelling(str(text))

    def _kept(self, spelt: Spelt | None) -> list[int]:
        """Return the ids whose log-probabilities windows stage, the blank first."""
        if self.is_result or spelt is None:
            ids = {*range(self.vocab_size)}
        else:
            ids = {*spelt.target().ids} | {spelt.delimiter} - {None}
        return [self.blank, *sorted(ids - {self.blank})]

    def _row(
        self, spelt: Spelt, alignment: Alignment | None, since: tuple[Floats, Floats] | None = None
    ) -> tuple[object, ...]:
        """Return the columns of a row; without a path null, but for the number of characters that were left out."""
        if alignment is None and any(word.ids for word in spelt.words):
            return (None, spelt.num_skipped, *(None for _ in self.schema.names[2:]))
        spans: dict[str, Spans] = {"words": [], "chars": []}
        for word, letters in self._timed(spelt, alignment, since):
            spans["words"].append(word.as_struct("word"))
            spans["chars"] += [letter.as_struct("char") for letter in letters]
        score = None if alignment is None else alignment.score
        return (score, spelt.num_skipped, *(spans[name.rpartition("_")[2]] for name in self.schema.names[2:]))

    def _timed(
        self, spelt: Spelt, alignment: Alignment | None, since: tuple[Floats, Floats] | None
    ) -> Iterator[tuple[_Timed, list[_Timed]]]:
        """Yield each word with its characters."""
        for word, places in zip(spelt.words, spelt.places(), strict=True):
            letters = [
                self._letter(one.text, place, alignment, since) if alignment and one.ids else _Timed(one.text)
                for one, place in zip(word.letters, places, strict=True)
            ]
            letters = letters if isinstance(self.spelling, PhonemeSpelling) else _with_silent_marks(letters)
            known = [one for one in letters if one.score is not None]
            if known:
                score = sum(cast("float", one.score) for one in known) / len(known)
                yield _Timed(word.text, known[0].start, known[-1].end, score), letters
            else:
                yield _Timed(word.text), letters

    def _letter(self, text: str, place: slice, alignment: Alignment, since: tuple[Floats, Floats] | None) -> _Timed:
        start = int(alignment.first_frames[place.start]) * self.frame_seconds
        end = (int(alignment.last_frames[place.stop - 1]) + 1) * self.frame_seconds
        if since is not None:
            start += float(since[0][place.start])
            end += float(since[1][place.stop - 1])
        return _Timed(text, start, end, float(np.exp(alignment.token_scores[place], dtype=np.float64).mean()))


def _with_silent_marks(letters: list[_Timed]) -> list[_Timed]:
    """Return the characters of a word in which marks of punctuation have no length."""
    timed = [one for one in letters if one.start is not None and one.end is not None]
    spans = [(cast("float", one.start), cast("float", one.end)) for one in timed]
    times = iter(times_of_word([one.text for one in timed], spans))
    found = []
    for one in letters:
        start, end = (None, None) if one.start is None else next(times)
        found.append(replace(one, start=start, end=end))
    return found


def _with_any_pause(values: npt.NDArray[np.float32], pauses: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return frames whose first ones, as long as the best token is a pause, may be any of the pauses."""
    highest = values[:, pauses].max(1)
    num_frames = int(np.append(highest < values[:, -1], True).argmax())
    changed = values.copy()
    changed[:num_frames, pauses] = highest[:num_frames, None]
    return changed


def _staged(frames: CTCFrames, windows: Sequence[int], kept: Sequence[Sequence[int]]) -> Iterator[Array]:
    """Yield log-probabilities of the tokens `kept` and of the best token of a window's frames, frame by frame."""
    if not windows:
        return
    owned = [frames.owned(one) for one in windows]
    ids = np.zeros((len(windows), max(map(len, kept))), np.int64)
    for of_window, one in zip(ids, kept, strict=True):
        of_window[: len(one)] = one
    of_frames = np.repeat(np.arange(len(windows)), [*map(len, owned)])
    places_N, of_N, ids_RK = send(frames.log_probs_BTV.device, np.concatenate(owned), of_frames, ids)
    log_probs_NV = frames.log_probs_BTV.flatten(0, 1)[places_N]
    [found] = fetch(torch.cat([log_probs_NV.gather(1, ids_RK[of_N]), log_probs_NV.amax(-1, keepdim=True)], -1))
    for values, one in zip(np.split(found, np.cumsum([*map(len, owned)])[:-1]), kept, strict=True):
        yield values[:, [*range(len(one)), -1]].ravel()


def spelling_of(
    tokenizer: CTCTokenizer, vocab_size: int, language: Language | None = None, *, is_result: bool = False
) -> Spelling | PhonemeSpelling:
    """Return the spelling of texts in the tokens of a head; `is_result`: texts that the head itself wrote."""
    special = {*tokenizer.all_special_tokens}
    known = {token: index for token, index in tokenizer.encoder.items() if index < vocab_size}
    text = tokenizer.word_delimiter_token
    delimiter = known.get(text or "")
    vocabulary = {token: index for token, index in known.items() if token not in special}
    if tokenizer.joint:
        vocabulary.pop(text or "", None)
        return PhonemeSpelling(vocabulary, delimiter, delimiter_text=text, refuses_letters=not is_result)
    return Spelling(vocabulary, delimiter, language)
