"""Whisper by CTranslate2: an encoder pass for each window, and decoding of groups of windows.

The input of a pass has one length, so the encoder's output for a window is the same to the last bit wherever it runs.
On a CPU as many workers as the actor has threads encode and decode at once, each with one thread. Groups are decoded
together in float32, where a text does not depend on its group; with products of eight bits a group is one window.

Legend: B batch, S samples, T frames, H hidden.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, cast

import ctranslate2
import numpy as np
import torch
from torch import Tensor

from raysp.backends.on_ctranslate2.whisper_files import TASKS, WhisperFiles
from raysp.backends.on_ctranslate2.whisper_mels import HOP, Floats, whisper_mels
from raysp.backends.on_ctranslate2.whisper_options import language_code
from raysp.crossing import fetch_recordings
from raysp.devices import is_accelerator, kind_of
from raysp.errors import CheckpointError
from raysp.models.base.outputs import ModelOutput
from raysp.models.labelled_passes import CheckpointSummary, ModelPass, TimedWord, Written
from raysp.text.token_words import WITHOUT_SPACES, words_of_tokens

Result = TypeVar("Result")

STEPS_PER_SECOND = 50
"""Frames a second of the attention from which times are read."""
MEDIAN_WIDTH = 7
"""Width of the median filter over this attention, as in the original."""


@dataclass(eq=False, kw_only=True)
class Encoded(ModelOutput):
    """Output of the encoder for each window, in groups that are decoded at once."""

    groups: Sequence["Group"] = ()


@dataclass(frozen=True)
class Group:
    """Windows that one worker decodes."""

    places: Sequence[int]
    """Places of the windows in the batch."""
    frames: Any
    """`StorageView` (B, T, H)."""
    num_mels: Sequence[int]
    """Frames of the input that each window itself has."""


class WhisperModel:
    """A loaded Whisper.

    Args:
        folder: a folder in CTranslate2's format.
        dtype: compute type, such as "int8_float32".
        device: "cpu" or "cuda", or one with a number.
    """

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        self.files = WhisperFiles(folder)
        self.summary: CheckpointSummary = self.files.describe()
        self.device, self.dtype = torch.device(device), torch.float32
        self.on_gpu = is_accelerator(device)
        self.alone = dtype.startswith("int8")
        self.workers = 1 if self.on_gpu else max(1, torch.get_num_threads())
        _check_compute_type(folder, dtype, kind_of(device))
        self.model: Any = ctranslate2.models.Whisper(
            os.fspath(folder),
            device=kind_of(device),
            device_index=self.device.index or 0,
            compute_type=dtype,
            inter_threads=self.workers,
            intra_threads=1,
        )
        self.pool = ThreadPoolExecutor(self.workers, "raysp-whisper")

    def run(self, waves_BS: Tensor, num_samples_B: Tensor, *, hidden_states: bool) -> ModelPass:
        """Encode a batch, as `LabellingModel` says. Hidden states are not given."""
        frames_B = torch.div(num_samples_B, self.summary.frame_stride, rounding_mode="floor")
        return ModelPass(
            heads={},
            num_frames_B=frames_B,
            encoded=Encoded(groups=self._groups(fetch_recordings(waves_BS, num_samples_B))),
        )

    def _groups(self, rows: Sequence[Floats]) -> list[Group]:
        num_mels = [min(len(row) // HOP, self.files.num_frames) for row in rows]
        mels = list(self.pool.map(lambda row: whisper_mels(row, self.files.num_bins, self.files.num_frames), rows))
        if self.on_gpu:  # the output stays there, and cannot be stacked
            return [Group(range(len(rows)), self.model.encode(_view(np.stack(mels))), num_mels)]
        frames = list(self.pool.map(lambda mel: np.array(self.model.encode(_view(mel[None]))), mels))
        number = len(rows) if self.alone else min(self.workers, len(rows))
        groups = [range(first, len(rows), number) for first in range(number)]
        return [
            Group(places, _view(np.concatenate([frames[i] for i in places])), [num_mels[i] for i in places])
            for places in groups
        ]

    def no_speech(self, encoded: ModelOutput) -> list[float]:
        """Return the probability of the token of no speech for each window, at the start token."""
        groups = cast("Encoded", encoded).groups
        return _in_order(groups, self.pool.map(self._no_speech, groups))

    def _no_speech(self, group: Group) -> list[float]:
        prompt = [self.files.token("startoftranscript"), self.files.token("notimestamps")]
        options = {"beam_size": 1, "max_length": len(prompt) + 1, "return_no_speech_prob": True}
        return [
            result.no_speech_prob
            for result in self.model.generate(group.frames, [prompt] * len(group.places), **options)
        ]

    def writer(self, options: Mapping[str, object], **request: Any) -> "TextWriter":  # noqa: ANN401
        """Return the text decoder with the options of a transcript."""
        return TextWriter(self, options, **request)


class TextWriter:
    """Text decoder, greedy by default.

    Args:
        whisper: the model.
        options: options of its `generate`.
        language: language of the texts; None: as detected for each window, if the model has several.
        task: "transcribe" or "translate"; None: the first.
        words: whether texts come with the times of their words.
        detect: whether texts come with the probabilities of languages.
    """

    def __init__(
        self,
        whisper: WhisperModel,
        options: Mapping[str, object],
        *,
        language: str | None,
        task: str | None,
        words: bool = False,
        detect: bool = False,
    ) -> None:
        self.model, self.files, self.pool = whisper.model, whisper.files, whisper.pool
        self.options = {"beam_size": 1, "max_length": whisper.files.most_tokens, **options}
        self.words = words
        self.languages = sorted(whisper.files.languages) if detect else []
        """Languages whose probabilities come with texts, in the order of the summary."""
        self.language = language if language is None else language_code(language)
        self.task = task or TASKS[0]

    def __call__(
        self, encoded: ModelOutput, features: Mapping[str, Tensor], places: Sequence[str]
    ) -> Sequence[Written]:
        """Return the text of each window; see `raysp.models.labelled_passes.Writer`."""
        groups = cast("Encoded", encoded).groups
        return _in_order(groups, self.pool.map(self._of_group, groups))

    def _of_group(self, group: Group) -> list[Written]:
        detected = self._detected(group)
        likeliest = [max(languages, key=languages.__getitem__) for languages in detected]
        codes = likeliest or [self.language or "en"] * len(group.places)
        prompts = [[*self._start(code), self.files.token("notimestamps")] for code in codes]
        results = self.model.generate(group.frames, prompts, return_scores=True, **self.options)
        texts = [self._text_ids(result.sequences_ids[0]) for result in results]
        words = self._times(group, texts, codes) if self.words else [()] * len(texts)
        # A score is a mean over the tokens without the end, which it includes in the sum.
        return [
            Written(
                self._decode(ids),
                result.scores[0] * len(result.sequences_ids[0]),
                len(result.sequences_ids[0]) + 1,
                spans,
                [of_window[code] for code in self.languages],
            )
            for ids, result, spans, of_window in zip(texts, results, words, detected or [{}] * len(texts), strict=True)
        ]

    def _detected(self, group: Group) -> list[dict[str, float]]:
        """Return the probability of each language for each window; empty if the language is given, or the only one."""
        if not self.files.is_multilingual or self.language is not None:
            return []
        detected = self.model.detect_language(group.frames)
        return [{token.strip("<|>"): probability for token, probability in row} for row in detected]

    def _start(self, code: str) -> list[int]:
        """Return the tokens that a text begins with, before the one that says that it has no tokens of times."""
        names = ["startoftranscript", *((code, self.task) if self.files.is_multilingual else ())]
        return [self.files.token(name) for name in names]

    def _text_ids(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens of text: special ones follow them in the vocabulary."""
        return [index for index in ids if index < self.files.token("endoftext")]

    def _decode(self, ids: Sequence[int]) -> str:
        return self.files.tokenizer.decode(list(ids))

    def _times(self, group: Group, texts: Sequence[list[int]], codes: Sequence[str]) -> list[tuple[TimedWord, ...]]:
        """Return the words of each text with their times, read from the attention of the decoder to the recording."""
        spans: list[tuple[TimedWord, ...]] = [()] * len(texts)
        for code in dict.fromkeys(codes):
            chosen = [i for i, (spoken, text) in enumerate(zip(codes, texts, strict=True)) if spoken == code and text]
            if not chosen:
                continue
            frames = group.frames if len(chosen) == len(texts) else _view(np.array(group.frames)[chosen])
            alignments = self.model.align(
                frames,
                self._start(code),
                [texts[i] for i in chosen],
                [group.num_mels[i] for i in chosen],
                median_filter_width=MEDIAN_WIDTH,
            )
            for i, aligned in zip(chosen, alignments, strict=True):
                spans[i] = tuple(self._words(texts[i], aligned, has_spaces=code not in WITHOUT_SPACES))
        return spans

    def _words(self, ids: Sequence[int], aligned: Any, *, has_spaces: bool) -> Iterator[TimedWord]:  # noqa: ANN401
        tokens, steps = np.array(aligned.alignments).T
        starts = steps[np.diff(tokens, prepend=-1) > 0] / STEPS_PER_SECOND  # of each token, and of the end
        for word in words_of_tokens(ids, self._decode, has_spaces=has_spaces):
            score = float(np.mean(aligned.text_token_probs[word.first : word.end]))
            yield TimedWord(word.text, float(starts[word.first]), float(starts[word.end]), score)


def _in_order(groups: Sequence[Group], results: Iterable[Sequence[Result]]) -> list[Result]:
    """Return the results of groups in the order of the windows."""
    places = [place for group in groups for place in group.places]
    values = [value for of_group in results for value in of_group]
    return [value for _, value in sorted(zip(places, values, strict=True), key=itemgetter(0))]


def _check_compute_type(folder: Path, dtype: str, kind: str) -> None:
    """Raise CheckpointError if a processor has no arithmetic of a name."""
    supported = ctranslate2.get_supported_compute_types(kind)
    if dtype not in supported:
        raise CheckpointError(
            f"{folder}: dtype={dtype!r} is not a compute type of CTranslate2 on {kind} here, expected one of "
            f"{', '.join(sorted(supported))}"
        )


def _view(array: np.ndarray) -> Any:  # noqa: ANN401 - a class of CTranslate2
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(array))
