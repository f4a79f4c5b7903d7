"""Regions of speech, from probabilities of a voice-activity model."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.checkpoints.packaged import SPEECH_RATE
from raysp.crossing import Array
from raysp.models.silero_vad import CHUNK_SAMPLES, SileroVAD, num_chunks
from raysp.ops.forward import Forward, ListingOp, Rows, Selected
from raysp.ops.transcribing import flat, list_lengths

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

HYSTERESIS = 0.15
"""A region ends where the probability is this much below the threshold at which it begins."""
LOWEST = 0.01
"""Lowest probability at which a region may end."""
PAD_SECONDS = 0.03
"""Padding on both sides of a region; neighbours share a pause shorter than twice this."""


@dataclass(frozen=True)
class Chunks:
    """Probabilities of speech in the chunks of a recording."""

    starts: Places
    """First sample of each chunk."""
    probabilities: Floats
    num_samples: int
    """Samples of the recording."""


@dataclass(eq=False)
class Speaking(ListingOp):
    """Op for the regions of speech in a recording.

    For a window of a longer row it stages the probabilities of the chunks whose middle the window owns. `join` computes
    the regions of the whole row. Rows that are cut at pauses come with their probabilities.

    Attributes:
        schema: column of lists of structs.
        staged: staged columns of a window: probabilities, the place of the first chunk from the first owned sample, and
            the number of owned samples.
        model: the model; None: only `join` is called.
        frame_stride: samples between the frames that windows own.
        threshold: probability at which a region begins.
        min_speech_seconds: shorter regions are dropped.
        min_silence_seconds: shorter pauses do not end a region.
    """

    model: SileroVAD | None
    _: KW_ONLY
    frame_stride: int
    threshold: float = 0.5
    min_speech_seconds: float = 0.25
    min_silence_seconds: float = 0.1

    def select(self, forward: Forward) -> Selected:
        if any(forward.rows.speech):
            return {}
        assert self.model is not None
        return {"speech": self.model.probabilities(forward.waves_BS, forward.num_samples_B)}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        if any(rows.speech):  # cut at pauses, with probabilities
            names = ("probabilities", "offset", "num_samples")
            staged = [[place and getattr(place, name) for place in rows.speech] for name in names]
            return [[None] * len(rows.speech), *staged]
        num_samples = rows.lengths.samples
        probs = [row_C[: num_chunks(samples)] for row_C, samples in zip(arrays["speech"], num_samples, strict=True)]
        windows = zip(probs, num_samples, rows.parts, rows.own_samples(self.frame_stride), strict=True)
        values = [
            (self._regions(Chunks(_starts(len(row)), row, samples)),) if part is None else self._owned(row, *own)
            for row, samples, part, own in windows
        ]
        return rows.either(self, values)

    def _owned(self, row: Floats, first: int, end: int, is_last: bool) -> tuple[Floats, int, int]:
        """Return the staged values of a window: the probabilities of its own chunks, their offset, its own samples."""
        middles = _starts(len(row)) + CHUNK_SAMPLES // 2
        from_chunk = int(np.searchsorted(middles, first))
        to_chunk = len(row) if is_last else int(np.searchsorted(middles, end))
        return row[from_chunk:to_chunk], from_chunk * CHUNK_SAMPLES - first, end - first

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        name, *numbers = self.staged.names
        offsets, samples = (windows.column(number).to_numpy() for number in numbers)
        firsts = np.cumsum(samples) - samples + offsets
        counts = list_lengths(windows, name)
        starts = [first + _starts(count) for first, count in zip(firsts.tolist(), counts, strict=True)]
        probabilities = np.asarray(flat(windows.column(name)), np.float32)
        return (self._regions(Chunks(np.concatenate(starts), probabilities, int(samples.sum()))),)

    def _regions(self, chunks: Chunks) -> list[dict[str, object]]:
        spans = regions(
            chunks,
            threshold=self.threshold,
            min_speech_samples=self.min_speech_seconds * SPEECH_RATE,
            min_silence_samples=self.min_silence_seconds * SPEECH_RATE,
        )
        padded = _padded([(start, end) for start, end, _ in spans], chunks.num_samples)
        return [
            {"start": start / SPEECH_RATE, "end": end / SPEECH_RATE, "score": score}
            for (start, end), (*_, score) in zip(padded, spans, strict=True)
        ]


def regions(
    chunks: Chunks, *, threshold: float, min_speech_samples: float, min_silence_samples: float
) -> list[tuple[int, int, float]]:
    """Return first sample, end and mean probability of each region of speech.

    A region begins with a chunk that reaches the threshold. It ends before a chunk below a lower threshold, if the
    threshold is not reached again for `min_silence_samples`.
    """
    starts, probabilities = chunks.starts, chunks.probabilities
    on = np.flatnonzero(probabilities >= threshold)
    low = np.flatnonzero(probabilities < max(threshold - HYSTERESIS, LOWEST))
    spans: list[tuple[int, int, float]] = []
    place = 0
    while (rank := int(np.searchsorted(on, place))) < len(on):
        first = int(on[rank])
        last, place = _end(starts, on, low, first, min_silence_samples)
        start, end = int(starts[first]), int(starts[last]) if last < len(starts) else chunks.num_samples
        if end - start > min_speech_samples:
            spans.append((start, end, float(probabilities[first:last].mean())))
    return spans


def _end(starts: Places, on: Places, low: Places, first: int, min_silence_samples: float) -> tuple[int, int]:
    """Return the chunk before which a region ends, and the first chunk at which the next region may begin."""
    place = first
    while (rank := int(np.searchsorted(low, place))) < len(low):
        last = int(low[rank])
        next_on = int(np.searchsorted(on, last))
        until = int(on[next_on]) if next_on < len(on) else len(starts)
        enough = int(np.searchsorted(starts, starts[last] + min_silence_samples))
        closing = int(np.searchsorted(low, enough))
        if closing < len(low) and low[closing] < until:
            return last, int(low[closing]) + 1
        if until == len(starts):
            break
        place = until
    return len(starts), len(starts)


def _padded(spans: Sequence[tuple[int, int]], num_samples: int) -> list[tuple[int, int]]:
    """Return regions extended by the padding on both sides, where there is room between neighbours."""
    pad = round(PAD_SECONDS * SPEECH_RATE)
    edges = [-2 * pad, *(edge for span in spans for edge in span), num_samples + 2 * pad]
    rooms = [min(pad, (edges[i + 1] - edges[i]) // 2) for i in range(0, len(edges), 2)]
    return [
        (max(0, start - rooms[number]), min(num_samples, end + rooms[number + 1]))
        for number, (start, end) in enumerate(spans)
    ]


def _starts(count: int) -> Places:
    return np.arange(count, dtype=np.int64) * CHUNK_SAMPLES
