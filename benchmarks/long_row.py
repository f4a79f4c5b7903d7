"""Label one recording of many hours in one row, and print the memory of each kind of process.

    python -m benchmarks long-row --hours 10
    python -m benchmarks long-row --hours 10 --stored path-flac

The recording repeats some minutes of joined digits: as MP3 in the row itself, or as a file in a manifest. The output
includes word times.

Question of docs/evidence/performance.md, "Long rows and word times":
what does a recording of many hours in one row take?
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
from benchmarks.tables import show, write_json

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


def recording(seconds: float, digits: str) -> tuple[bytes, int]:
    """Return an MP3 of about these seconds, made by repeating the frames of a part, and its number of words."""
    import soxr

    speakers = corpus.read_utterances(digits)
    utterances = next(iter(speakers.values()))
    samples, chosen = corpus.join(np.random.default_rng(5), utterances, min(PART_SECONDS, seconds))
    wave = soxr.resample(samples / np.float32(32768), utterances[0].sample_rate, MODEL_RATE)
    file = io.BytesIO()
    soundfile.write(
        file, wave, MODEL_RATE, format="MP3", bitrate_mode="CONSTANT", compression_level=0.68
    )  # 56 kb a second
    encoded = file.getvalue()
    frames = encoded[encoded.index(b"\xff\xf3", 4) :]  # without the first frame, which claims a length
    times = max(1, round(seconds * MODEL_RATE / len(wave)))
    return frames * times, len(chosen) * times


def write_file(path: Path, seconds: float, digits: str) -> int:
    """Write a file of about these seconds, part by part. Returns its number of words."""
    import soxr

    utterances = next(iter(corpus.read_utterances(digits).values()))
    samples, chosen = corpus.join(np.random.default_rng(5), utterances, min(PART_SECONDS, seconds))
    wave = soxr.resample(samples / np.float32(32768), utterances[0].sample_rate, MODEL_RATE)
    times = max(1, round(seconds * MODEL_RATE / len(wave)))
    with soundfile.SoundFile(path, "w", MODEL_RATE, 1, subtype="PCM_16") as file:
        for _ in range(times):
            file.write(wave)
    return len(chosen) * times


def store(folder: Path, stored: str, seconds: float, digits: str) -> tuple[str, int, int]:
    """Write the corpus. Returns its url, the stored bytes and the number of words."""
    (folder / "corpus").mkdir()
    if stored == "embedded-mp3":
        encoded, num_words = recording(seconds, digits)
        audio = pa.array([{"bytes": encoded, "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        pq.write_table(pa.table({"id": ["long"], "audio": audio}), folder / "corpus" / "long.parquet")
        return str(folder / "corpus"), len(encoded), num_words
    path = folder / "corpus" / f"long.{stored.removeprefix('path-')}"
    num_words = write_file(path, seconds, digits)
    manifest = folder / "corpus" / "long.jsonl"
    manifest.write_text(json.dumps({"id": "long", "audio_filepath": path.name}) + "\n")
    return str(manifest), path.stat().st_size, num_words


def measure(hours: float, digits: str, stored: str) -> dict[str, object]:
    """Label the recording with the bundled checkpoint in a separate run."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as name:
        folder = Path(name)
        url, stored_bytes, num_words = store(folder, stored, hours * 3600, digits)
        file = folder / "label_long_row.py"
        sink = folder / "labels"
        file.write_text(PIPELINE.format(corpus=url, checkpoint=str(BUNDLED), sink=str(sink)))
        started = time.time()
        watched = processes.run([sys.executable, "-m", "raysp.cli", "run", str(file), "--json"], memory_every=1)
        if watched.code:
            raise SystemExit(f"the run ended with {watched.code}: {watched.stderr}")
        row = pq.read_table(next(sink.glob("*.parquet"))).to_pylist()[0]
    words = row["pred_words"]
    gaps = [b["start"] - a["end"] for a, b in pairwise(words)]
    return {
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
        "peak_bytes_of": dict(sorted(watched.peak_bytes_of.items(), key=lambda one: -one[1])),
        "peak_bytes": watched.peak_bytes,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks long-row", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=10, help="hours of audio")
    parser.add_argument(
        "--stored",
        choices=("embedded-mp3", "path-wav", "path-flac"),
        default="embedded-mp3",
        help="how the recording is stored",
    )
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args.hours, args.digits, args.stored)
    peaks = found.pop("peak_bytes_of")
    show(f"one row of {args.hours:g} hours", [found])
    assert isinstance(peaks, dict)
    show("most memory of a process", [{"process": k, "MB": f"{v / 1e6:.0f}"} for k, v in list(peaks.items())[:6]])
    if args.json:
        write_json(args.json, {**found, "peak_bytes_of": peaks})


if __name__ == "__main__":
    main()
