"""Segments of recordings for `Mos`: those of a plain loop over the whole recording, whatever windows it is cut into."""

import numpy as np
import pytest

from raysp.ops.pasts import Past, Pasts
from raysp.ops.rating import segments_of

RATE, SECONDS = 16_000, 9.01


def by_a_loop(audio: np.ndarray) -> list[np.ndarray]:
    """The segments of the published program."""
    while len(audio) < int(SECONDS * RATE):
        audio = np.append(audio, audio)
    hops = int(np.floor(len(audio) / RATE) - SECONDS) + 1
    parts = [audio[hop * RATE : int((hop + SECONDS) * RATE)] for hop in range(hops)]
    return [part for part in parts if len(part) == int(SECONDS * RATE)]


def counted(seconds: float) -> np.ndarray:
    return np.arange(round(RATE * seconds), dtype=np.float32)


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [(part[0], part[-1], len(part)) for part in found] == [(part[0], part[-1], len(part)) for part in expected]


@pytest.mark.parametrize("seconds", [0.001, 2, 4.6, 9, 9.0099, 9.01, 9.5, 10, 10.01, 11.7, 19, 130])
def test_a_whole_recording(seconds):
    assert_same([*segments_of(counted(seconds), None)], by_a_loop(counted(seconds)))


@pytest.mark.parametrize("seed", range(40))
def test_windows_of_a_recording(seed):
    draw = np.random.default_rng(seed)
    audio = counted(draw.choice([draw.uniform(2, 12), draw.uniform(12, 140)]))
    window = int(RATE * draw.choice([0.5, 3, 8, 12, 30]))
    step = int(window * draw.choice([0.3, 0.8, 1]))
    pasts, found, start = Pasts(10 * RATE), [], 0
    while start + window < len(audio):
        past = pasts.before(is_last=False)
        assert isinstance(past, Past)
        assert len(past.samples) <= 10 * RATE
        found += segments_of(audio[start : start + window], past)
        pasts.add(audio[start : start + window], step)
        start += step
    found += segments_of(audio[start:], pasts.before(is_last=True))
    assert_same(found, by_a_loop(audio))
