"""Speech that a transcript leaves out: `signal.unread` where words were removed from transcripts of real recordings.

    python -m benchmarks unread
    python -m benchmarks unread --recordings 200 --digits 'digits/*.parquet' --checkpoint CHECKPOINT CHECKPOINT

Digits of one speaker are joined to recordings, and transcribed with times. Words of 5 s at a random place are removed,
all words after 30 s, or none. Speech is what Silero VAD finds, or what the levels of the recording say.
"""

import argparse
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import soxr

import raysp
from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.studies.words import Spoken, speak
from benchmarks.tables import show, write_json
from raysp.audio.levels import Cells, levels
from raysp.text.unread import Interval, unread

RATE, CELL = 16_000, 320
SHORTEST_SECONDS, LONGEST_SECONDS = 12.0, 60.0
HOLE_SECONDS, STOP_SECONDS = 5.0, 30.0
LEAST_AFTER = 5.0
"""Least seconds of a recording after `STOP_SECONDS`."""
LIMIT = 3.0
"""Recordings below it pass."""


@dataclass(frozen=True)
class Labelled:
    """A recording with its words, and its regions of speech by two means."""

    seconds: float
    words: Sequence[Interval]
    speech: Mapping[str, Sequence[Interval]]


def recordings(digits: str, count: int, seed: int = 0) -> list[Spoken]:
    """Return recordings of joined digits."""
    rng = np.random.default_rng(seed)
    speakers = list(corpus.read_utterances(digits).values())
    return [
        speak(rng, speakers[int(rng.integers(len(speakers)))], rng.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
        for _ in range(count)
    ]


def label(checkpoint: str, spoken: Sequence[Spoken]) -> list[Labelled]:
    """Transcribe recordings, and find their speech."""
    outputs = [raysp.Transcript(words=True), raysp.Speech()]
    audio = [{"bytes": one.encoded, "path": None} for one in spoken]
    table = pa.table({"id": [str(number) for number in range(len(spoken))], "audio": audio})
    with raysp.Labeller([raysp.Decode(), raysp.Label(checkpoint, outputs=outputs, device="cpu")]) as labeller:
        rows = labeller(table).to_pylist()
    return [
        Labelled(
            row["seconds"],
            _intervals(row["pred_words"]),
            {"Silero VAD": _intervals(row["pred_speech"]), "levels": _loud(one.encoded)},
        )
        for one, row in zip(spoken, rows, strict=True)
    ]


def _loud(encoded: bytes) -> list[Interval]:
    """Return the stretches of a recording whose level is that of speech."""
    samples, rate = soundfile.read(io.BytesIO(encoded), dtype="float32")
    samples = soxr.resample(samples, rate, RATE, quality="HQ")
    energy = np.square(samples[: len(samples) // CELL * CELL].reshape(-1, CELL), dtype=np.float32).mean(1)
    cells = Cells(RATE, CELL, energy, energy, np.zeros(len(energy), np.int64), 1.0, np.ones(CELL // 2 + 1))
    return _intervals(levels(cells)["speech"])


def _intervals(spans: Any) -> list[Interval]:
    return [(span["start"], span["end"]) for span in spans]


def longest(row: Labelled, speech: str, start: float, end: float) -> float:
    """Return the longest speech without a word if the words between two times are removed."""
    words = [word for word in row.words if not start <= sum(word) / 2 < end]
    return unread(row.speech[speech], words).longest


def results(checkpoints: Sequence[str], spoken: Sequence[Spoken], seed: int = 0) -> Iterator[dict[str, object]]:
    """Yield the figures of each checkpoint and means to find speech."""
    for checkpoint in checkpoints:
        rows = label(checkpoint, spoken)
        long = [row for row in rows if row.seconds >= STOP_SECONDS + LEAST_AFTER]
        for speech in ("Silero VAD", "levels"):
            starts = np.random.default_rng(seed).uniform(0, [row.seconds - HOLE_SECONDS for row in rows])
            untouched = [longest(row, speech, 0, 0) for row in rows]
            holes = [longest(row, speech, at, at + HOLE_SECONDS) for row, at in zip(rows, starts, strict=True)]
            stopped = [longest(row, speech, STOP_SECONDS, np.inf) for row in long]
            yield {
                "checkpoint": Path(checkpoint).name,
                "speech by": speech,
                "untouched": f"{np.median(untouched):.2f}, {max(untouched):.2f}",
                "alarms": _share(untouched),
                "5 s removed": f"{np.median(holes):.2f}, {min(holes):.2f}",
                "found": _share(holes),
                "stopped at 30 s": f"{np.median(stopped):.2f}, {min(stopped):.2f}" if stopped else "",
                "found of these": _share(stopped),
            }


def _share(values: Sequence[float]) -> str:
    return f"{sum(value >= LIMIT for value in values)} of {len(values)}"


def main(argv: list[str]) -> None:
    """Measure, and print a table: medians in seconds, and the longest or shortest."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks unread", description=__doc__)
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS)
    parser.add_argument("--checkpoint", nargs="+", default=[str(BUNDLED)])
    parser.add_argument("--recordings", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    rows = list(results(options.checkpoint, recordings(options.digits, options.recordings)))
    show("Longest speech without a word", rows)
    if options.json:
        write_json(options.json, rows)
