"""Windows of recordings that are cut at pauses, so that the model sees no long silence.

Regions of speech with shorter pauses between them than `MOST_PAUSE_SECONDS` form a stretch, which is a window of the
model. If it is longer than a window, it is cut at its longest pause, in the second half of the window if there is one.
Only a region longer than a window is cut within, like rows without speech windows. A recording of at most a second is
one window, regardless of the speech detected in it.

A recording is read in parts of equal length, so its windows do not depend on how it is decoded. Memory holds a window,
a part, and the probabilities of speech since the last pause.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import torch

from raysp.audio import Samples
from raysp.audio.waveforms import Windowing, concatenate, cut_windows
from raysp.models.base.placing import arithmetic
from raysp.models.features.processors import as_float
from raysp.models.silero_vad import CHUNK_SAMPLES, SileroVAD, SpeechState
from raysp.ops.rows import WHOLE_SECONDS, CutWave, Place
from raysp.ops.speech.speaking import Chunks, Floats, regions

READ_CHUNKS = 1024
"""Chunks of a part of a recording: 33 seconds."""
MOST_PAUSE_SECONDS = 1.0
"""Longest pause within a window."""
KEPT_SECONDS = 0.2
"""Silence that is kept on both sides of a stretch."""

Span = tuple[int, int]
"""First sample and end of a region or stretch."""


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
        windowing: division of regions longer than a window, and the lengths of windows and frames.
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

    def __call__(self, chunks: Iterator[Samples]) -> Iterator[CutWave]:
        """Yield the windows of a recording while it is decoded; none if it has no speech.

        A recording of at most `WHOLE_SECONDS` is one window, with speech or without.
        The last window has the probabilities and samples of the rest of the recording.
        """
        recording = _Recording(chunks, self.model)
        emitted_until = 0
        for window, following in pairwise(chain(self._windows(recording), [None])):
            assert window is not None
            wave, (start, end), (first, stop) = window
            end = recording.end if following is None else end
            chunk = -(-emitted_until // CHUNK_SAMPLES)
            probabilities = recording.probabilities(chunk, -(-end // CHUNK_SAMPLES))
            offset, num_samples = chunk * CHUNK_SAMPLES - emitted_until, end - emitted_until
            place = Place(start // self.windowing.frame_stride, first, stop, probabilities, offset, num_samples)
            yield CutWave(wave, num_samples, following is None, place)
            emitted_until = end

    def _is_whole(self, recording: "_Recording") -> bool:
        """Return whether a recording is too short to be cut; its first part is read."""
        most = min(round(WHOLE_SECONDS * self.windowing.sample_rate), self.windowing.window_samples)
        while recording.end <= most and recording.read():
            pass
        return 0 < recording.end <= most

    def _windows(self, recording: "_Recording") -> Iterator[tuple[Samples, Span, Span]]:
        """Yield windows, each with its place in samples and the frames that it owns."""
        if self._is_whole(recording):
            wave = recording.samples(0, recording.end)
            yield wave, (0, len(wave)), self.windowing.owned_frames(0, len(wave), is_last=True)
            return
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
        emitted_until = start
        while True:
            span, *following = self._spans(recording)
            if following or self._is_over([span], [span], recording):
                _, end = self._stretch(span, floor, following[0][0] if following else None, recording)
                end = max(end, emitted_until + 1)
                yield _Part(recording.samples(emitted_until, end), start, True)
                recording.forget(end, max(end, span[1]))
                return end
            until = max(emitted_until, min(span[1], recording.end - round(self.min_silence_samples) - CHUNK_SAMPLES))
            if until > emitted_until:
                yield _Part(recording.samples(emitted_until, until), start, False)
                recording.forget(until)
                emitted_until = until
            recording.read()

    def _spans(self, recording: "_Recording") -> list[Span]:
        """Return the regions after the last stretch; the last one may continue in unread samples."""
        detected = regions(
            recording.chunks(),
            threshold=self.threshold,
            min_speech_samples=self.min_speech_samples,
            min_silence_samples=self.min_silence_samples,
        )
        return [(start, end) for start, end, _ in detected]

    def _near(self, spans: Sequence[Span]) -> list[Span]:
        """Return the first regions between which no pause is too long."""
        longest = MOST_PAUSE_SECONDS * self.windowing.sample_rate
        far = (place for place, (span, following) in enumerate(pairwise(spans), 1) if following[0] - span[1] > longest)
        return [*spans[: next(far, len(spans))]]

    def _is_over(self, near: Sequence[Span], spans: Sequence[Span], recording: "_Recording") -> bool:
        """Return whether no further region belongs to a stretch."""
        if recording.is_complete or len(near) < len(spans):
            return True
        longest = MOST_PAUSE_SECONDS * self.windowing.sample_rate
        return bool(near) and recording.end - near[-1][1] > longest + self.min_speech_samples + CHUNK_SAMPLES

    def _number(self, near: Sequence[Span], *, is_over: bool) -> int:
        """Return the number of regions in the first stretch; 0 if more of the recording must be read."""
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
        """Return a stretch with silence on both sides, at most half of the silence before the next region.

        Args:
            span: first sample and end of its regions.
            floor: end of the stretch before it.
            following: first sample of the next region; None: distant, or unread.
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
    """The uncut part of a recording: its samples, and its probabilities of speech."""

    def __init__(self, chunks: Iterator[Samples], model: SileroVAD) -> None:
        self._parts = _equal_parts(chunks, READ_CHUNKS * CHUNK_SAMPLES)
        self._model = model
        self._state: SpeechState | None = None
        self._buffer: Samples = np.empty(0, np.int16)
        self._begin = 0
        self._speech: Floats = np.empty(0, np.float32)
        self._first_chunk = 0
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
            speech_C, self._state = self._model.continued(as_float(torch.from_numpy(part)), self._state)
        self._speech = np.concatenate([self._speech, speech_C.numpy()])
        self._buffer = concatenate([self._buffer, part])
        self.end += len(part)
        return True

    def chunks(self) -> Chunks:
        """Return the probabilities since the last stretch."""
        probabilities = self._speech[self._first_chunk :]
        starts = (self._first_chunk + np.arange(len(probabilities), dtype=np.int64)) * CHUNK_SAMPLES
        return Chunks(starts, probabilities, self.end)

    def probabilities(self, first: int, end: int) -> Floats:
        """Return the probabilities of some chunks of the recording."""
        return self._speech[first:end]

    def samples(self, start: int, end: int) -> Samples:
        """Return a copy of buffered samples."""
        # A view would keep all buffered samples in memory.
        return self._buffer[start - self._begin : end - self._begin].copy()

    def forget(self, sample: int, region_end: int | None = None) -> None:
        """Drop the samples before a place, and regions that begin before `region_end`."""
        if sample > self._begin:
            self._buffer, self._begin = self.samples(sample, self.end), sample
        if region_end is not None:
            self._first_chunk = max(self._first_chunk, -(-region_end // CHUNK_SAMPLES))


def _samples(part: _Part, parts: Iterator[_Part]) -> Iterator[Samples]:
    """Yield the samples of a stretch, whose further parts are next in `parts`."""
    yield part.samples
    while not part.is_last:
        part = next(parts)
        yield part.samples


def _equal_parts(chunks: Iterator[Samples], num_samples: int) -> Iterator[Samples]:
    """Yield a recording in parts of equal length, the last part shorter."""
    buffer: list[Samples] = []
    count = 0
    for chunk in chunks:
        buffer.append(chunk)
        count += len(chunk)
        if count >= num_samples:
            joined = concatenate(buffer)
            whole = count - count % num_samples
            yield from np.split(joined[:whole], range(num_samples, whole, num_samples))
            buffer, count = [joined[whole:].copy()], count - whole
    if count:
        yield concatenate(buffer)
