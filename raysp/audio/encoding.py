"""Encoding of samples, and parts of decoded recordings."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import soundfile

from raysp.audio.waveforms import Samples, concatenate


def encode_flac(samples: Samples, sample_rate: int) -> bytes:
    """Return samples, at least one, as a FLAC file of 16 bits. Values outside -1 and 1 are clipped.

    Samples are of shape (num_samples,), or (num_samples, channels) with at most 8 channels.

    The same samples give the same bytes.
    """
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def cut_parts(chunks: Iterable[Samples], parts: Sequence[tuple[int, int]]) -> Iterator[Samples]:
    """Yield parts of a recording while it is decoded. A part behind its end is shorter, or empty.

    Args:
        chunks: all samples in order.
        parts: first sample and end of each part, ascending and without overlaps.
    """
    rest = iter(chunks)
    held: Samples = np.empty(0, np.float32)
    place = 0  # of the first held sample
    for first, end in parts:
        while place + len(held) < end and (chunk := next(rest, None)) is not None:
            kept = held[max(0, first - place) :]
            place += len(held) - len(kept)
            held = concatenate([kept, chunk]) if len(kept) else chunk
        start = max(0, first - place)
        yield held[start : max(start, end - place)]
