"""How many cores decode for a model of a given speed, by format of the recordings?

    python -m benchmarks decoding --recordings FOLDER

Every recording of the folder is stored in each format and at each sample rate first. Then a decoding process, as in a
run, decodes all recordings of a format to 16 kHz. Figures are seconds of audio per second of CPU time (both processes,
best of the repeats), and the number of cores that decode for a model of a given speed.
"""

import argparse
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import soundfile
import soxr

from benchmarks.inputs.corpus import DEMO_DIGITS
from benchmarks.tables import show
from benchmarks.timing import timed
from raysp import audio
from raysp.audio.isolation import Decoder

FORMATS: Mapping[str, Mapping[str, str]] = {
    "wav, 16 bit": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    "ogg vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}
RATES = (16_000, 48_000)
SPEEDS = (500, 2000)
"""Of models, in times real time."""
MODEL_RATE = 16_000
SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus"}
CHUNK_SECONDS = 10.0
"""Audio is written in parts: libsndfile's encoder of Vorbis overflows the stack on minutes at once."""


def recordings(folder: Path | None) -> list[tuple[np.ndarray, int]]:
    """Return the first channel of each recording below a folder, with its rate; None: the digits of the demo."""
    if folder is None:
        table = pq.read_table(sorted(Path(DEMO_DIGITS).parent.glob("*.parquet")))
        sources: list[object] = [io.BytesIO(row["bytes"]) for row in table.column("audio").to_pylist()]
    else:
        sources = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES]
    if not sources:
        raise SystemExit(f"--recordings {folder}: no recordings ({', '.join(sorted(SUFFIXES))}) there")
    found = (soundfile.read(source, dtype="float32", always_2d=True) for source in sources)
    return [(samples[:, 0], rate) for samples, rate in found if len(samples)]


def encode(samples: np.ndarray, rate: int, wanted: int, options: Mapping[str, str]) -> bytes:
    """Return a recording in a format at a sample rate."""
    samples = np.clip(soxr.resample(samples, rate, wanted), -1.0, 1.0)
    file, step = io.BytesIO(), round(CHUNK_SECONDS * wanted)
    with soundfile.SoundFile(file, "w", wanted, 1, **options) as writer:
        for start in range(0, len(samples), step):
            writer.write(samples[start : start + step])
    return file.getvalue()


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its living children."""
    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def measure(folder: Path | None = None, repeats: int = 3) -> list[dict[str, object]]:
    """Return the speed of each format at each rate, and the cores that a model of each speed needs."""
    found = recordings(folder)
    seconds = sum(len(samples) / rate for samples, rate in found)
    return [
        row(name, rate, [encode(*one, rate, options) for one in found], seconds, repeats)
        for name, options in FORMATS.items()
        for rate in RATES
    ]


def row(name: str, rate: int, encoded: Sequence[bytes], seconds: float, repeats: int) -> dict[str, object]:
    """Return the table row of a format."""
    with Decoder() as decoder:
        _decode(decoder, encoded[:1])  # starts the process
        taken = timed({name: lambda: _decode(decoder, encoded)}, repeats, cpu_clock=cpu_seconds)[name]
    best = min(taken, key=lambda one: one.cpu)
    speed = seconds / best.cpu
    return {
        "format": name,
        "rate, kHz": rate // 1000,
        "kB/s of audio": round(sum(map(len, encoded)) / seconds / 1000, 1),
        "speed of a core": round(speed),
        "wall / CPU": round(best.wall / best.cpu, 2),
        **{f"cores for a speed of {one}": math.ceil(one / speed * 10) / 10 for one in SPEEDS},
    }


def _decode(decoder: Decoder, encoded: Sequence[bytes]) -> None:
    for decoded in decoder.decode_all(map(audio.Excerpt, encoded), audio.DecodeOptions(MODEL_RATE)):
        assert isinstance(decoded, np.ndarray), decoded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--recordings", type=Path, metavar="FOLDER", help="recordings; by default digits of the demo")
    parser.add_argument("--repeats", type=int, default=3, help="repeats, of which the fastest counts (%(default)s)")


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure and print."""
    found = measure(args.recordings, args.repeats)
    show(f"Decoding to 16 kHz on {os.cpu_count()} cores", found)
    return found
