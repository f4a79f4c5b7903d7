"""Recordings of joined digits of one speaker, with the times of their words."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from benchmarks.inputs.corpus import GAP_NOISE, Utterance

GAP_SECONDS = (0.08, 0.45)


@dataclass(frozen=True)
class SpokenDigits:
    """A recording, and its words with their starts and ends in seconds."""

    encoded: bytes
    seconds: float
    words: Sequence[tuple[str, float, float]]

    @property
    def text(self) -> str:
        return " ".join(word for word, *_ in self.words)


def speak(rng: np.random.Generator, utterances: Sequence[Utterance], seconds: float) -> SpokenDigits:
    """Join random utterances, each after a gap, until they are of so many seconds."""
    rate = utterances[0].sample_rate
    samples: list[np.ndarray] = []
    words: list[tuple[str, float, float]] = []
    length = 0
    while length < seconds * rate:
        gap = rng.integers(-GAP_NOISE, GAP_NOISE, round(rng.uniform(*GAP_SECONDS) * rate), endpoint=True)
        utterance = utterances[rng.integers(len(utterances))]
        samples += [gap.astype(np.int16), utterance.samples]
        start = length + len(gap)
        length = start + len(utterance.samples)
        words.append((utterance.text, start / rate, length / rate))
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(samples), rate, format="FLAC", subtype="PCM_16")
    return SpokenDigits(file.getvalue(), length / rate, words)
