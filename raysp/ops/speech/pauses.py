"""Windows of recordings that are cut at pauses, so that the model is not given longer silence.

Regions of speech with shorter pauses between them than `MOST_PAUSE_SECONDS` form a stretch, which is a window of the
model. If it is longer than a window, it is cut at its longest pause, in the second half of the window if there is one.
Only a region that is itself longer than a window is cut within, as rows without speech windows are. A recording of at
most a second is one window, whatever the model of speech finds in it.

A recording is read in parts of one length, so its windows do not depend on how it is decoded. Memory holds a window,
one part, and the probabilities of speech since the last pause.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from raysp.audio import Samples
from raysp.audio.waveforms import Windowing, concatenate, cut_windows
from raysp.models.base.placing import arithmetic
from raysp.models.features.processors import as_float
from raysp.models.silero_vad import CHUNK_SAMPLES, SileroVAD, SpeechState
from raysp.ops.rows import WHOLE_SECONDS, Place
from raysp.ops.speech.speaking import Chunks, Floats, regions

READ_CHUNKS = 1024
"""Chunks of a part of a recording that is read at once: 33 seconds."""
MOST_PAUSE_SECONDS = 1.0
"""Longest pause within a window."""
KEPT_SECONDS = 0.2
"""Silence that is kept on both sides of a stretch."""

Span = tuple[int, int]
"""First sample and end of a region or stretch."""


class SpeechWindow(NamedTuple):
    """A window with its place."""

    wave: Samples
    place: Place


class _Part(NamedTuple):
    """Samples of a stretch."""

    samples: Samples
    start: int
    """First sample of the stretch."""
    is_last: bool


@dataclass(frozen=True)
class SpeechWindows:
    """Callable that cuts recordings at pauses.

    Attributes:
        model: model of speech, on the CPU.
        windowing: division of regions that are longer than a window, and the lengths of windows and frames.
        min_samples: samples of the shortest input of the model.
        grid_samples: windows begin at multiples of it.
        threshold: probability of speech at which a region begins.
        min_speech_samples: shorter regions are not labelled.
        min_silence_samples: shorter pauses do not end a region.
    """

    model: SileroVAD
    windowing: Windowing
    min_samples: int
    grid_samples: int
    threshold: float
    min_speech_samples: float
    min_silence_samples: float

    def __call__(self, chunks: Iterator[Samples]) -> Iterator[SpeechWindow]:
        """Yield the windows of a recording while it is decoded; none if it has no speech.

        A recording of at most `WHOLE_SECONDS` is one window, with speech or without.
        The last window accounts for the probabilities and samples of the rest of the recording.
        """
        recording = _Recording(chunks, self.model)
        if self._is_whole(recording):
            wave = recording.samples(0, recording.end)
            owned = self.windowing.owned_frames(0, len(wave), is_last=True)
            yield _window((wave, (0, len(wave)), owned), recording, self.windowing.frame_stride, 0, len(wave))
            return
        held: tuple[Samples, Span, Span] | None = None
        told = 0
        for found in self._windows(recording):
            if held is not None:
                end = held[1][1]
                yield _window(held, recording, self.windowing.frame_stride, told, end)
                told = end
            held = found
        if held is not None:
            yield _window(held, recording, self.windowing.frame_stride, told, recording.end)

    def _is_whole(self, recording: "_Recording") -> bool:
        """Return whether a recording is too short to be cut; its first part is read."""
        most = min(round(WHOLE_SECONDS * self.windowing.sample_rate), self.windowing.window_samples)
        while recording.end <= most and recording.read():
            pass
        return 0 < recording.end <= most

    def _windows(self, recording: "_Recording") -> Iterator[tuple[Samples, Span, Span]]:
        """Yield windows, each with its place in samples and the frames that it owns."""
        parts = self._parts(recording)
        for part in parts:
            start = part.start
            for number, (wave, is_last) in enumerate(cut_windows(_samples(part, parts), self.windowing)):
                owned = self.windowing.owned_frames(number, len(wave), is_last=is_last)
                yield wave, (start, start + len(wave)), owned
                start += self.windowing.added_samples(len(wave))

    def _parts(self, recording: "_Recording") -> Iterator[_Part]:
        """Yield the stretches of a recording."""
        floor = 0
        while True:
            spans = self._spans(recording)
            near = self._near(spans)
            number = self._number(near, is_over=self._is_over(near, spans, recording)) if near else 0
            if number:
                following = spans[number][0] if number < len(spans) else None
                start, floor = self._stretch((near[0][0], near[number - 1][1]), floor, following, recording)
                yield _Part(recording.samples(start, floor), start, True)
                recording.forget(floor, near[number - 1][1])
            elif near and self._fitting(near) == 0:
                floor = yield from self._long(recording, floor)
            else:
                if not near:
                    silent = recording.end - round(self.min_speech_samples) - self._kept - 2 * CHUNK_SAMPLES
                    recording.forget(silent, silent)
                if not recording.read():
                    return

    def _long(self, recording: "_Recording", floor: int) -> Generator[_Part, None, int]:
        """Yield a region that is longer than a window while it is read; return its end."""
        [first, _], *_ = self._spans(recording)
        start, _ = self._stretch((first, first), floor, None, recording)
        told = start
        while True:
            span, *others = self._spans(recording)
            if others or self._is_over([span], [span], recording):
                _, end = self._stretch(span, floor, others[0][0] if others else None, recording)
                end = max(end, told + 1)
                yield _Part(recording.samples(told, end), start, True)
                recording.forget(end, max(end, span[1]))
                return end
            until = max(told, min(span[1], recording.end - round(self.min_silence_samples) - CHUNK_SAMPLES))
            if until > told:
                yield _Part(recording.samples(told, until), start, False)
                recording.forget(until)
                told = until
            recording.read()

    def _spans(self, recording: "_Recording") -> list[Span]:
        """Return the regions after the last stretch; the last one may go on behind what was read."""
        found = regions(
            recording.chunks(),
            threshold=self.threshold,
            min_speech_samples=self.min_speech_samples,
            min_silence_samples=self.min_silence_samples,
        )
        return [(start, end) for start, end, _ in found]

    def _near(self, spans: Sequence[Span]) -> list[Span]:
        """Return the first regions between which no pause is too long."""
        longest = MOST_PAUSE_SECONDS * self.windowing.sample_rate
        far = (place for place, (one, other) in enumerate(pairwise(spans), 1) if other[0] - one[1] > longest)
        return [*spans[: next(far, len(spans))]]

    def _is_over(self, near: Sequence[Span], spans: Sequence[Span], recording: "_Recording") -> bool:
        """Return whether no further region belongs to a stretch."""
        if recording.is_complete or len(near) < len(spans):
            return True
        longest = MOST_PAUSE_SECONDS * self.windowing.sample_rate
        return bool(near) and recording.end - near[-1][1] > longest + self.min_speech_samples + CHUNK_SAMPLES

    def _number(self, near: Sequence[Span], *, is_over: bool) -> int:
        """Return the number of regions in the first stretch; 0: more of the recording, or of a long region, decides."""
        fitting = self._fitting(near)
        if fitting == len(near):
            return fitting if is_over else 0
        half = near[0][0] + self.windowing.window_samples // 2
        pauses = [(near[i - 1][1] >= half, near[i][0] - near[i - 1][1], i) for i in range(1, fitting + 1)]
        return max(pauses)[2] if pauses else 0

    def _fitting(self, near: Sequence[Span]) -> int:
        """Return the number of first regions that fit in a window, with silence on both sides."""
        most = near[0][0] + self.windowing.window_samples - 2 * self._kept - self.grid_samples
        return sum(end <= most for _, end in near)

    def _stretch(self, span: Span, floor: int, following: int | None, recording: "_Recording") -> Span:
        """Return a stretch with silence on both sides, at most half of that before the next region.

        Args:
            span: first sample and end of its regions.
            floor: end of the stretch before it.
            following: first sample of the next region; None: not near, or not known.
            recording: the recording.
        """
        grid = self.grid_samples
        lowest = -(-floor // grid) * grid
        start = max(lowest, (span[0] - self._kept) // grid * grid)
        end = min(span[1] + self._kept, recording.end)
        if following is not None and (middle := (span[1] + following) // 2) < end:
            end = max(middle // grid * grid, start)
        end = min(max(end, start + self.min_samples), recording.end)
        return max(lowest, min(start, (end - self.min_samples) // grid * grid)), end

    @property
    def _kept(self) -> int:
        return round(KEPT_SECONDS * self.windowing.sample_rate)


class _Recording:
    """The part of a recording that is not cut yet: its samples, and its probabilities of speech."""

    def __init__(self, chunks: Iterator[Samples], model: SileroVAD) -> None:
        self._parts = _equal_parts(chunks, READ_CHUNKS * CHUNK_SAMPLES)
        self._model = model
        self._state: SpeechState | None = None
        self._held: list[Samples] = []
        self._begin = 0
        self._all: list[Floats] = []
        self._settled = 0
        self.end = 0
        """Samples that were read."""
        self.is_complete = False

    def read(self) -> bool:
        """Read the next part; return whether there was one."""
        part = next(self._parts, None)
        if part is None:
            changed, self.is_complete = not self.is_complete, True
            return changed
        with torch.inference_mode(), arithmetic(dtype="float32", device="cpu"):
            found_C, self._state = self._model.continued(as_float(torch.from_numpy(part)), self._state)
        self._all.append(found_C.numpy())
        self._held.append(part)
        self.end += len(part)
        return True

    def chunks(self) -> Chunks:
        """Return the probabilities since the last stretch."""
        found = self.probabilities(self._settled, None)
        starts = (self._settled + np.arange(len(found), dtype=np.int64)) * CHUNK_SAMPLES
        return Chunks(starts, found, self.end)

    def probabilities(self, first: int, end: int | None) -> Floats:
        """Return the probabilities of some chunks of the recording."""
        if len(self._all) > 1:
            self._all = [np.concatenate(self._all)]
        return self._all[0][first:end] if self._all else np.empty(0, np.float32)

    def samples(self, start: int, end: int) -> Samples:
        """Return a copy of samples that are held."""
        if len(self._held) > 1:
            self._held = [concatenate(self._held)]
        # A view would keep all samples that are held in memory.
        return self._held[0][start - self._begin : end - self._begin].copy()

    def forget(self, sample: int, region_end: int | None = None) -> None:
        """Drop the samples before a place, and regions that begin before `region_end`."""
        if sample > self._begin:
            rest = self.samples(sample, self.end)
            self._held, self._begin = [rest], sample
        if region_end is not None:
            self._settled = max(self._settled, -(-region_end // CHUNK_SAMPLES))


def _samples(part: _Part, parts: Iterator[_Part]) -> Iterator[Samples]:
    """Yield the samples of a stretch, whose further parts come next."""
    yield part.samples
    while not part.is_last:
        part = next(parts)
        yield part.samples


def _window(
    found: tuple[Samples, Span, Span], recording: _Recording, frame_stride: int, told: int, end: int
) -> SpeechWindow:
    """Return a window that accounts for the recording from `told` to `end`."""
    wave, (start, _), (first, stop) = found
    chunk = -(-told // CHUNK_SAMPLES)
    probabilities = recording.probabilities(chunk, -(-end // CHUNK_SAMPLES))
    offset = chunk * CHUNK_SAMPLES - told
    return SpeechWindow(wave, Place(start // frame_stride, first, stop, probabilities, offset, end - told))


def _equal_parts(chunks: Iterator[Samples], num_samples: int) -> Iterator[Samples]:
    """Yield a recording in parts of one length, the last one shorter."""
    held: list[Samples] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        if count >= num_samples:
            joined = concatenate(held)
            whole = count - count % num_samples
            yield from np.split(joined[:whole], range(num_samples, whole, num_samples))
            held, count = [joined[whole:].copy()], count - whole
    if count:
        yield concatenate(held)
