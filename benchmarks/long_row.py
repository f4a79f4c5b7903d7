"""Label one recording of many hours that lies in one row, and tell the memory that each kind of process takes.

    python -m benchmarks long-row --hours 10

The recording is some minutes of joined digits as MP3, over and over; words are asked for.
"""

import argparse
import io
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from benchmarks import corpus, processes
from benchmarks.checkpoints import BUNDLED
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
    """Make an MP3 of about these seconds by repeating the frames of a part; returns it and the words that it holds."""
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


def measure(hours: float, digits: str) -> dict[str, object]:
    """Label the recording with the bundled checkpoint in a run of its own."""
    encoded, num_words = recording(hours * 3600, digits)
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        audio = pa.array([{"bytes": encoded, "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        pq.write_table(pa.table({"id": ["long"], "audio": audio}), folder / "corpus" / "long.parquet")
        file = folder / "label_long_row.py"
        sink = folder / "labels"
        file.write_text(PIPELINE.format(corpus=str(folder / "corpus"), checkpoint=str(BUNDLED), sink=str(sink)))
        started = time.time()
        watched = processes.run([sys.executable, "-m", "raysp.cli", "run", str(file), "--json"], memory_every=1)
        if watched.code:
            raise SystemExit(f"the run ended with {watched.code}: {watched.stderr}")
        row = pq.read_table(sink / "long.parquet").to_pylist()[0]
    words = row["pred_words"]
    gaps = [b["start"] - a["end"] for a, b in pairwise(words)]
    return {
        "hours": hours,
        "stored_bytes": len(encoded),
        "status": row["status"],
        "seconds": row["seconds"],
        "words_placed": num_words,
        "words_found": len(words),
        "last_word_ends": words[-1]["end"],
        "longest_gap": max(gaps),
        "wall_seconds": time.time() - started,
        "limit_bytes": BYTES_A_ROW * len(encoded) + BYTES_BESIDE,
        "peak_bytes_of": dict(sorted(watched.peak_bytes_of.items(), key=lambda one: -one[1])),
        "peak_bytes": watched.peak_bytes,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks long-row", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    found = measure(args.hours, args.digits)
    peaks = found.pop("peak_bytes_of")
    show(f"one row of {args.hours:g} hours", [found])
    assert isinstance(peaks, dict)
    show("most memory of a process", [{"process": k, "MB": f"{v / 1e6:.0f}"} for k, v in list(peaks.items())[:6]])
    if args.json:
        write_json(args.json, {**found, "peak_bytes_of": peaks})


if __name__ == "__main__":
    main()
