"""Regions of speech: those of the original for the same probabilities, whatever windows a row is cut into."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysp.models.silero_vad import CHUNK_SAMPLES
from raysp.ops.forward import Forward
from raysp.ops.speech.speaking import Chunks, Speaking
from tests.ops.phases import a_pass, columns_of

STRIDE = 320
STAGED = pa.schema([("s_probabilities", pa.list_(pa.float32())), ("s_offset", pa.int32()), ("s_samples", pa.int64())])
SCHEMA = pa.schema(
    [("s", pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), ("score", pa.float32())])))]
)


class Loudness:
    """Stands in for the model: the probability of a chunk is its mean sample."""

    def probabilities(self, waves: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        rows = [
            torch.stack([chunk.mean() for chunk in wave[:count].split(CHUNK_SAMPLES)])
            for wave, count in zip(waves, num_samples.tolist(), strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def speaking(**fields: float) -> Speaking:
    return Speaking(SCHEMA, STAGED, Loudness(), frame_stride=STRIDE, **fields)


def forward(waves: list[torch.Tensor], parts: list[tuple[int, int] | None]) -> Forward:
    return a_pass([(len(wave) - 400) // STRIDE + 1 for wave in waves], parts, waves=waves)


def probabilities(seed: int, count: int = 300) -> np.ndarray:
    """Draw probabilities that stay for a while, and cross all thresholds."""
    draw = np.random.default_rng(seed)
    steps = np.repeat(draw.random(count), draw.geometric(0.2, count))[:count]
    return np.clip(steps + 0.1 * draw.standard_normal(count), 0, 1).astype(np.float32)


@pytest.mark.parametrize("fields", [(0.5, 250, 100), (0.5, 0, 0), (0.3, 100, 200), (0.8, 0, 400), (0.1, 250, 64)])
@pytest.mark.parametrize("seed", range(3))
def test_regions_are_those_of_the_original(seed, fields):
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    threshold, speech, silence = fields
    row = probabilities(seed)
    num_samples = len(row) * CHUNK_SAMPLES - 100
    expected = get_speech_timestamps_from_probs(
        row.tolist(),
        threshold=threshold,
        min_speech_duration_ms=speech,
        min_silence_duration_ms=silence,
        audio_length_samples=num_samples,
    )
    op = speaking(threshold=threshold, min_speech_seconds=speech / 1000, min_silence_seconds=silence / 1000)
    found = op._regions(Chunks(np.arange(len(row)) * CHUNK_SAMPLES, row, num_samples))
    assert [(round(one["start"] * 16_000), round(one["end"] * 16_000)) for one in found] == [
        (one["start"], one["end"]) for one in expected
    ]


def steps_of(seconds: float, seed: int = 0) -> torch.Tensor:
    """Make a wave whose parts of some tenths of a second are 0 or 1."""
    draw = np.random.default_rng(seed)
    parts = [np.full(int(draw.integers(6_000, 20_000)), number % 2, np.float32) for number in range(200)]
    return torch.from_numpy(np.concatenate(parts)[: int(16_000 * seconds)])


@pytest.mark.parametrize(("length", "overlap"), [(5.0, 1.0), (10.0, 0.0)])
def test_windows_give_the_regions_of_the_whole_row(length, overlap):
    wave, op = steps_of(31.3), speaking()
    size, step = (round(16_000 * one / STRIDE) * STRIDE for one in (length, length - overlap))
    starts = list(range(0, len(wave) - (size - step), step))
    half = (size - step) // 2 // STRIDE
    windows, parts = [], []
    for number, start in enumerate(starts):
        windows.append(wave[start : start + size if number < len(starts) - 1 else None])
        last = (len(windows[-1]) - 400) // STRIDE + 1
        parts.append((half if number else 0, half + step // STRIDE if number < len(starts) - 1 else last))
    [whole], *_ = columns_of(op, forward([wave], [None]))
    nulls, *staged = columns_of(op, forward(windows, parts))
    assert nulls == [None] * len(windows)
    [joined] = op.join(pa.table(staged, schema=STAGED))
    assert sum(staged[2]) == len(wave)
    assert len(joined) == len(whole) > 10
    for one, other in zip(joined, whole, strict=True):
        for edge in ("start", "end"):
            assert abs(one[edge] - other[edge]) <= CHUNK_SAMPLES / 16_000
