"""Overhead of decoding in a separate process: the same recordings in process and isolated, in turn.

Question of docs/evidence/performance.md, "Isolated decoding": what does decoding in a separate process cost?
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import soundfile

from benchmarks.tables import show, write_json
from raysp import audio
from raysp.audio.isolation import Decoder

CASES = (
    ("WAV", 1.0, 2000),
    ("WAV", 15.0, 1000),
    ("FLAC", 1.0, 2000),
    ("FLAC", 15.0, 200),
    ("MP3", 15.0, 60),
    ("FLAC", 1800.0, 2),
)
"""Container, seconds of each recording, how many."""


def make(container: str, seconds: float) -> bytes:
    """Return a recording of intermittent noise at 16 kHz."""
    samples = np.random.default_rng(0).normal(0, 2000, int(16_000 * seconds))
    samples *= np.sin(np.arange(len(samples)) / 8000) ** 2
    file = io.BytesIO()
    soundfile.write(file, samples.astype(np.int16), 16_000, format=container)
    return file.getvalue()


def measure(repeats: int = 5) -> list[dict[str, object]]:
    """Return the CPU time of both processes per recording, in process and isolated, the shortest of `repeats`."""
    rows: list[dict[str, object]] = []
    with Decoder() as decoder:
        decoder.read_header(make("WAV", 1.0))  # starts the child
        (child,) = psutil.Process().children()

        def cpu_seconds() -> float:
            return time.process_time() + sum(child.cpu_times()[:2])

        for container, seconds, count in CASES:
            recordings = [make(container, seconds)] * count

            def all_of(decode: Callable[..., Iterator[object]], recordings: list[bytes] = recordings) -> None:
                for found in decode((audio.Excerpt(one) for one in recordings), audio.DecodeOptions(16_000)):
                    assert isinstance(found, np.ndarray)

            ways: dict[str, Callable[[], None]] = {
                "in process": lambda: all_of(audio.decode_all),
                "isolated": lambda: all_of(decoder.decode_all),
                "headers in process": lambda r=recordings: [*audio.read_headers(r)],  # type: ignore[misc]
                "headers isolated": lambda r=recordings: [*decoder.read_headers(r)],  # type: ignore[misc]
            }
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(repeats):
                for way, run in ways.items():
                    start = cpu_seconds()
                    run()
                    times[way].append((cpu_seconds() - start) / count * 1e6)
            least = {way: min(found) for way, found in times.items()}
            rows.append(
                {
                    "recordings": f"{count} of {seconds:g} s, {container}",
                    **{f"{way}, CPU us": round(found, 1) for way, found in least.items()},
                    "isolated / in process": round(least["isolated"] / least["in process"], 3),
                }
            )
    return rows


def main(argv: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks isolation", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="repeats, of which the fastest counts (%(default)s)")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args.repeats)
    show("Isolated decoding", found)
    if args.json:
        write_json(args.json, found)
