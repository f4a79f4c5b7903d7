"""Rates of the host's cores: how fast one of them decodes each format, and how many of them a GPU needs."""

from collections.abc import Iterator
from functools import partial

from benchmarks.gpu import speech
from benchmarks.gpu.part import Case, Figures, Setting

SECONDS = 25.0
FORMATS = ("wav, 16 bit", "flac", "mp3", "ogg vorbis", "opus")
RATES = (16_000, 48_000)
RECORDINGS, RECORDING_SECONDS = 20, 12.0
NEEDS = ("soundfile", "soxr", "psutil")


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each format at each rate."""
    for name in FORMATS[:1] if setting.few else FORMATS:
        for rate in RATES[:1] if setting.few else RATES:
            yield Case(f"{name}, {rate // 1000} kHz", partial(measure, name, rate, setting), NEEDS)


def measure(name: str, rate: int, setting: Setting) -> Figures:
    """Decode recordings as a run does."""
    import numpy as np

    from benchmarks import decoding

    count = RECORDINGS if setting.is_gpu else 2
    waves = [wave.astype(np.float32) / 32768 for wave in speech.rows([RECORDING_SECONDS] * count)]
    encoded = [decoding.encode(wave, speech.RATE, rate, decoding.FORMATS[name]) for wave in waves]
    row = decoding.row(name, rate, encoded, RECORDING_SECONDS * count, 2 if setting.is_gpu else 1, (4_000, 10_000))
    return {key: value for key, value in row.items() if key not in ("format", "rate, kHz")}
