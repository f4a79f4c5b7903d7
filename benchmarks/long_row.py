"""What does a recording of many hours in one row take, and how much memory has each kind of process?

    python -m benchmarks long-row --hours 10
    python -m benchmarks long-row --hours 10 --stored path-flac

The recording repeats some minutes of joined digits: as MP3 in the row itself, or as a file in a manifest. The output
includes word times.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.programs import processes
from benchmarks.tables import show

MODEL_RATE = 16_000
PART_SECONDS = 600
BYTES_A_ROW, BYTES_BESIDE = 3.5, 500e6
"""A worker's memory may be so many times the stored bytes of a row, and so much more."""

PIPELINE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({corpus!r}),
    steps=[raysp.Decode(), raysp.Label({checkpoint!r}, outputs=[raysp.Transcript(words=True)])],
    sink=raysp.Parquet({sink!r}),
)
"""


def part(seconds: float, digits: str) -> tuple[np.ndarray, int, int]:
    """Return joined digits at 16 kHz, how often they make a recording of about these seconds, and its words."""
    utterances = next(iter(corpus.read_utterances(digits, MODEL_RATE).values()))
    samples, words = corpus.join(np.random.default_rng(5), utterances, min(PART_SECONDS, seconds))
    times = max(1, round(seconds * MODEL_RATE / len(samples)))
    return samples, times, len(words) * times


def encode_mp3(samples: np.ndarray, times: int) -> bytes:
    """Return an MP3 of 56 kbit/s, made by repeating the frames of a part."""
    file = io.BytesIO()
    soundfile.write(file, samples, MODEL_RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.68)
    encoded = file.getvalue()
    return encoded[encoded.index(b"\xff\xf3", 4) :] * times  # without the first frame, which claims a length


def store(folder: Path, stored: str, seconds: float, digits: str) -> tuple[str, int, int]:
    """Write the corpus. Returns its url, the stored bytes and the number of words."""
    folder.mkdir()
    samples, times, num_words = part(seconds, digits)
    if stored == "embedded-mp3":
        encoded = encode_mp3(samples, times)
        audio = pa.array([{"bytes": encoded, "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        pq.write_table(pa.table({"id": ["long"], "audio": audio}), folder / "long.parquet")
        return str(folder), len(encoded), num_words
    path, manifest = folder / f"long.{stored.removeprefix('path-')}", folder / "long.jsonl"
    with soundfile.SoundFile(path, "w", MODEL_RATE, 1, subtype="PCM_16") as file:
        for _ in range(times):
            file.write(samples)
    manifest.write_text(json.dumps({"id": "long", "audio_filepath": path.name}) + "\n")
    return str(manifest), path.stat().st_size, num_words


def measure(hours: float, digits: str, stored: str) -> tuple[dict[str, object], dict[str, int]]:
    """Label the recording with the bundled checkpoint in a separate run. Returns figures, and memory by process."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as name:
        folder = Path(name)
        url, stored_bytes, num_words = store(folder / "corpus", stored, hours * 3600, digits)
        file = folder / "label_long_row.py"
        sink = folder / "labels"
        file.write_text(PIPELINE.format(corpus=url, checkpoint=str(BUNDLED), sink=str(sink)))
        started = time.time()
        watched = processes.run([sys.executable, "-m", "raysp", "run", str(file), "--json"], memory_every=1)
        if watched.code:
            raise SystemExit(f"the run ended with {watched.code}: {watched.stderr}")
        row = pq.read_table(next(sink.glob("*.parquet"))).to_pylist()[0]
    words = row["pred_words"]
    gaps = [b["start"] - a["end"] for a, b in pairwise(words)]
    found = {
        "hours": hours,
        "stored": stored,
        "stored_bytes": stored_bytes,
        "status": row["status"],
        "seconds": row["seconds"],
        "words_placed": num_words,
        "words_found": len(words),
        "last_word_ends": words[-1]["end"],
        "longest_gap": max(gaps),
        "wall_seconds": time.time() - started,
        "limit_bytes": (BYTES_A_ROW * stored_bytes if stored == "embedded-mp3" else 0) + BYTES_BESIDE,
        "peak_bytes": watched.peak_bytes,
    }
    return found, dict(sorted(watched.peak_bytes_of.items(), key=lambda one: -one[1]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--hours", type=float, default=10, help="hours of audio")
    parser.add_argument(
        "--stored",
        choices=("embedded-mp3", "path-wav", "path-flac"),
        default="embedded-mp3",
        help="how the recording is stored",
    )
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure and print."""
    found, peaks = measure(args.hours, args.digits, args.stored)
    show(f"one row of {args.hours:g} hours", [found])
    show("most memory of a process", [{"process": k, "MB": f"{v / 1e6:.0f}"} for k, v in list(peaks.items())[:6]])
    return {**found, "peak_bytes_of": peaks}
