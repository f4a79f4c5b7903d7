"""Encoded recordings in memory, read again and again: decoded as a run does it, into the blocks of a model.

Each reader is a thread with a decoding process of its own, as the readers of a run have one. Without soundfile and soxr
readers take WAV alone, by the standard library.
"""

import io
import itertools
import os
import queue
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.gpu import packages, speech

BY_RAYSP = ("soundfile", "soxr", "psutil")
"""Packages without which recordings are decoded by the standard library."""
WAV = "wav"
KINDS: Mapping[str, tuple[str, int]] = {
    WAV: ("wav, 16 bit", speech.RATE),
    "flac": ("flac", speech.RATE),
    "opus 48 kHz": ("opus", 48_000),
}
"""Formats, as `benchmarks.decoding` names them, with their sample rates."""
AHEAD = 2
"""Blocks that are ready ahead of the actor, for each reader."""
Read = Callable[[pa.Table], Iterator[pa.Table]]
"""Decodes the recordings of a piece to blocks."""


def usual_kind() -> str:
    """Return the format in which corpora come: FLAC, or WAV where it cannot be decoded here."""
    return WAV if packages.absent(BY_RAYSP) else "flac"


def num_readers(device: str) -> int:
    """Return the readers beside a model: a core each, but for two of the model; one where times mean nothing."""
    return max(1, len(os.sched_getaffinity(0)) - 2) if device == "cuda" else 1


def encode(waves: speech.Waves, kind: str) -> pa.Table:
    """Return recordings in a format, as the rows of a shard hold them."""
    if kind == WAV:
        encoded = [_as_wav(one) for one in waves]
    else:
        from benchmarks import decoding

        name, rate = KINDS[kind]
        options = decoding.FORMATS[name]
        with ThreadPoolExecutor() as threads:
            encoded = [
                *threads.map(lambda one: decoding.encode(one / np.float32(32768), speech.RATE, rate, options), waves)
            ]
    return pa.table({"audio": pa.array([{"bytes": one} for one in encoded], pa.struct({"bytes": pa.binary()}))})


def _as_wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(speech.RATE)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


class Readers:
    """Threads that decode a piece again and again.

    Args:
        recordings: column `audio` of the piece.
        number: of threads.
        windowing: division of recordings into windows.
        block_seconds: seconds of audio of a block.
    """

    def __init__(self, recordings: pa.Table, number: int, windowing: Any, block_seconds: float) -> None:
        self.recordings = recordings
        self.number = number
        self.windowing = windowing
        self.block_seconds = block_seconds
        self.waited = 0.0
        """Seconds for which whoever takes blocks had none."""

    def blocks(self, times: int) -> Iterator[pa.Table]:
        """Yield the blocks of so many readings of the piece; raise what a reader raised."""
        ready: queue.Queue[pa.Table | BaseException | None] = queue.Queue(AHEAD * self.number)
        left = itertools.count()
        ends = threading.Event()
        threads = [threading.Thread(target=self._run, args=(ready, left, times, ends)) for _ in range(self.number)]
        for one in threads:
            one.start()
        try:
            running = self.number
            while running:
                started = time.perf_counter()
                found = ready.get()
                self.waited += time.perf_counter() - started
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    running -= 1
                else:
                    yield found
        finally:
            ends.set()
            while any(one.is_alive() for one in threads):  # one may be about to put its last block
                while not ready.empty():
                    ready.get_nowait()
                threads[0].join(0.05)

    def _run(self, ready: "queue.Queue[Any]", left: Iterator[int], times: int, ends: threading.Event) -> None:
        try:
            with closing(self._reading()) as reading:
                while next(left) < times and not ends.is_set():
                    for block in reading.read(self.recordings):
                        ready.put(block)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    def _reading(self) -> "_ByRaysp | _ByTheStandardLibrary":
        made = _ByTheStandardLibrary if packages.absent(BY_RAYSP) else partial(_ByRaysp, self.windowing)
        return made(self.block_seconds)


class _ByRaysp:
    """The op of a run's readers, with a decoding process."""

    def __init__(self, windowing: Any, block_seconds: float) -> None:
        from raysp.audio.isolation import Decoder
        from raysp.ops.decoding import Decoding

        self.decoder = Decoder()
        self.op = Decoding(audio="audio", windowing=windowing, block_seconds=block_seconds, decoder=self.decoder)

    def read(self, recordings: pa.Table) -> Iterator[pa.Table]:
        """Yield blocks."""
        yield from self.op(recordings, 0)

    def close(self) -> None:
        """End the decoding process."""
        self.decoder.close()


class _ByTheStandardLibrary:
    """WAV of 16 bits, read in this process."""

    def __init__(self, block_seconds: float) -> None:
        self.block_seconds = block_seconds

    def read(self, recordings: pa.Table) -> Iterator[pa.Table]:
        """Yield blocks of rows of like length."""
        waves = [speech.read_wav(one["bytes"].as_buffer().to_pybytes()) for one in recordings.column("audio")]
        for block in of_like_length(waves, self.block_seconds):
            yield speech.block_of(block)

    def close(self) -> None:
        """Do nothing."""


def of_like_length(waves: speech.Waves, block_seconds: float) -> Iterator[Sequence[np.ndarray]]:
    """Yield rows of like length, so many seconds of audio at once."""
    held: list[np.ndarray] = []
    for one in sorted(waves, key=len, reverse=True):
        if held and sum(map(len, (*held, one))) > block_seconds * speech.RATE:
            yield held
            held = []
        held.append(one)
    yield held
