"""Regions of speech are those of the original in any windows; windows cut at pauses hold all speech and no silence."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysp.audio.waveforms import Windowing
from raysp.crossing import fetch
from raysp.models.silero_vad import CHUNK_SAMPLES
from raysp.ops.forward import Forward, Lengths, Rows
from raysp.ops.speech.pauses import MOST_PAUSE_SECONDS, SpeechWindows
from raysp.ops.speech.speaking import Chunks, Speaking, regions

RATE, STRIDE, GRID = 16_000, 320, 640
STAGED = pa.schema([("s_probabilities", pa.list_(pa.float32())), ("s_offset", pa.int32()), ("s_samples", pa.int64())])
SCHEMA = pa.schema(
    [("s", pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), ("score", pa.float32())])))]
)


class Loudness:
    """Stands in for the model: the probability of a chunk is its mean sample."""

    def continued(self, wave: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        return torch.stack([chunk.mean() for chunk in wave.split(CHUNK_SAMPLES)]), state

    def probabilities(self, waves: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        rows = [self.continued(wave[:count], None)[0] for wave, count in zip(waves, num_samples.tolist(), strict=True)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def regions_of(op: Speaking, waves: list[torch.Tensor], parts: list[tuple[int, int] | None]) -> list:
    """Return the columns of windows of a row."""
    samples = [len(wave) for wave in waves]
    frames = [(one - 400) // STRIDE + 1 for one in samples]
    rows = Rows(Lengths(samples, frames, frames), parts, [""] * len(waves))
    padded, lengths = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor(samples)
    forward = Forward(rows, {}, None, torch.tensor(frames), waves_BS=padded, num_samples_B=lengths)
    return op.columns({name: fetch(value)[0] for name, value in op.select(forward).items()}, rows)


@pytest.mark.parametrize("fields", [(0.5, 250, 100), (0.5, 0, 0), (0.3, 100, 200), (0.8, 0, 400), (0.1, 250, 64)])
def test_regions_are_those_of_the_original(fields):
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    threshold, speech, silence = fields
    draw = np.random.default_rng(0)
    steps = np.repeat(draw.random(900), draw.geometric(0.2, 900))[:900]  # stay for a while, and cross all thresholds
    row = np.clip(steps + 0.1 * draw.standard_normal(900), 0, 1).astype(np.float32)
    wave = torch.from_numpy(np.repeat(row, CHUNK_SAMPLES)[:-100])
    expected = get_speech_timestamps_from_probs(
        row.tolist(),
        threshold=threshold,
        min_speech_duration_ms=speech,
        min_silence_duration_ms=silence,
        audio_length_samples=len(wave),
    )
    fields = {"threshold": threshold, "min_speech_seconds": speech / 1000, "min_silence_seconds": silence / 1000}
    op = Speaking(SCHEMA, STAGED, Loudness(), frame_stride=STRIDE, **fields)
    [found], *_ = regions_of(op, [wave], [None])
    assert len(expected) > 3
    assert [{name: round(one[name] * RATE) for name in ("start", "end")} for one in found] == expected


def recording(seed: int, seconds: float) -> np.ndarray:
    """Make a wave of ones (speech) and zeros, of a tenth of a second to some seconds each; one stretch is long."""
    draw = np.random.default_rng(seed)
    parts = [np.full(int(RATE * draw.choice([0.13, 0.4, 1.3, 4.0])), number % 2) for number in range(200)]
    parts[2 * int(draw.integers(4)) + 1] = np.ones(30 * RATE)
    return np.concatenate(parts)[: int(seconds * RATE)].astype(np.float32)


def cutter(window_seconds: float = 8.0, *, at_quiet_points: bool = False) -> SpeechWindows:
    windowing = Windowing.of(
        sample_rate=RATE,
        frame_stride=STRIDE,
        min_samples=400,
        window_seconds=window_seconds,
        overlap_seconds=2,
        group_frames=GRID // STRIDE,
        at_quiet_points=at_quiet_points,
    )
    return SpeechWindows(
        Loudness(),
        windowing,
        min_samples=2000,
        grid_samples=GRID,
        threshold=0.5,
        min_speech_samples=0.25 * RATE,
        min_silence_samples=0.1 * RATE,
    )


def chunks_of(wave: np.ndarray) -> Iterator[np.ndarray]:
    return (wave[start : start + 10_000] for start in range(0, len(wave), 10_000))


@pytest.mark.parametrize(("seed", "at_quiet_points"), [(0, False), (1, True)])
def test_windows_hold_all_speech_and_no_long_pause(seed, at_quiet_points):
    wave, cut = recording(seed, 150), cutter(at_quiet_points=at_quiet_points)
    found = list(cut(chunks_of(wave)))
    probabilities, _ = Loudness().continued(torch.from_numpy(wave), None)
    chunks = Chunks(np.arange(len(probabilities)) * CHUNK_SAMPLES, probabilities.numpy(), len(wave))
    speech = regions(chunks, threshold=0.5, min_speech_samples=4000, min_silence_samples=1600)
    is_in = np.zeros(len(wave), np.bool_)
    for one in found:
        start, end = one.place.frame * STRIDE, one.place.frame * STRIDE + len(one.wave)
        assert start % (STRIDE if at_quiet_points else GRID) == 0
        assert (one.wave == wave[start:end]).all()
        assert 2000 <= len(one.wave) <= cut.windowing.window_samples + STRIDE
        is_in[start:end] = True
    assert all(is_in[start:end].mean() > 0.999 for start, end, _ in speech)
    pauses = [(one[1], other[0]) for one, other in pairwise(speech) if other[0] - one[1] > MOST_PAUSE_SECONDS * RATE]
    assert pauses
    assert not any(is_in[end + 8000 : start - 8000].any() for end, start in pauses)
    owned = [(one.place.frame + one.place.first, one.place.frame + one.place.end) for one in found]
    assert all(first < end for first, end in owned)
    assert all(one[1] <= other[0] for one, other in pairwise(owned))
