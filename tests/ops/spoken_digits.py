"""Recordings of digits with known pauses."""

import numpy as np

from benchmarks.inputs.corpus import read_utterances
from tests import kit
from tests.corpora import DEMO

RATE = 16_000


def spoken(pauses: list[float]) -> tuple[bytes, list[tuple[str, float]]]:
    """Join digits, with a pause before each; return the recording, and the words with their starts."""
    utterances = read_utterances(str(DEMO / "audio" / "*.parquet"), RATE)["jackson"]
    parts, words, place = [], [], 0
    for number, pause in enumerate(pauses):
        silence = np.random.default_rng(number).integers(-8, 9, int(pause * RATE)).astype(np.int16)
        one = utterances[number]
        parts += [silence, one.samples]
        words.append((one.text.lower(), (place + len(silence)) / RATE))
        place += len(silence) + len(one.samples)
    return kit.sound(np.concatenate([*parts, np.zeros(3 * RATE, np.int16)]), RATE, "FLAC"), words
