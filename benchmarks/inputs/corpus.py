"""A corpus of recordings of speech-like lengths, joined of short real ones (spoken digits).

    python -m benchmarks corpus --kind test-like --minutes 10 --out /tmp/test-like

Parquet in the Hugging Face audio layout with FLAC bytes; a recording joins utterances of one speaker, 0.2 s apart.
The same arguments and the same digits give the same bytes.
"""

import argparse
import glob
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

HERE = Path(__file__).parents[1]
DEMO_DIGITS = str(HERE.parent / "pipelines" / "demo" / "audio" / "*.parquet")
GAP_SECONDS = 0.2
GAPS = (GAP_SECONDS, GAP_SECONDS)
"""Shortest and longest gap between recordings that are joined."""
GAP_NOISE = 8
"""Peak of the noise in a gap, of 32768: recorded silence is never digital silence."""
ROW_GROUP_ROWS = 32
CONTAINERS = {"flac": "PCM_16", "mp3": "MPEG_LAYER_III"}
"""Containers of the recordings, with their encodings as libsndfile names them."""
LONG_SHARE = 0.01
LONG_CORPUS_SECONDS = 3 * 3600
"""Corpora below it get shorter long recordings, so that one of them is not the corpus."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("speaker_id", pa.string()),
        ("duration", pa.float64()),
        ("parts", pa.list_(pa.string())),
    ]
)
"""`parts` are the ids of the utterances that a recording joins, in order."""


@dataclass(frozen=True)
class Utterance:
    """One short recording."""

    id: str
    samples: np.ndarray
    sample_rate: int
    text: str


def read_utterances(url: str, sample_rate: int | None = None) -> dict[str, list[Utterance]]:
    """Read the short recordings of shards, by speaker. `sample_rate` None keeps their rates."""
    speakers: dict[str, list[Utterance]] = {}
    names = sorted(glob.glob(url))
    if not names:
        raise SystemExit(f"--digits {url!r}: no such shards")
    for row in (row for name in names for row in pq.read_table(name).to_pylist()):
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        if sample_rate not in (None, rate):
            samples, rate = _resampled(samples, rate, sample_rate), sample_rate
        speakers.setdefault(row["speaker_id"], []).append(Utterance(row["id"], samples, rate, row["text"]))
    return {speaker: speakers[speaker] for speaker in sorted(speakers)}


def _resampled(samples: np.ndarray, rate: int, wanted: int | None) -> np.ndarray:
    import soxr

    return soxr.resample(samples, rate, wanted, quality="HQ")


def train_like(rng: np.random.Generator, total: float) -> Iterator[float]:
    """1 to 35 s, mean 12.3."""
    while True:
        yield 1 + 34 * rng.beta(1.9, 3.82)


def test_like(rng: np.random.Generator, total: float) -> Iterator[float]:
    """1 to 35 s, mean 7, most of them short."""
    while True:
        yield min(1 + rng.gamma(2, 3), 35)


def long_tail(rng: np.random.Generator, total: float) -> Iterator[float]:
    """Lognormal around 6 s from 0.3 to 120 s, and 1 % of 5 to 20 minutes, fewer in a small corpus."""
    scale = min(1, total / LONG_CORPUS_SECONDS)
    yield scale * rng.uniform(300, 1200)
    while True:
        if rng.random() < LONG_SHARE:
            yield scale * rng.uniform(300, 1200)
        else:
            yield float(np.clip(rng.lognormal(np.log(6), 1), 0.3, 120))


def equal(rng: np.random.Generator, total: float) -> Iterator[float]:
    """10 s each, so that sorting has no effect."""
    while True:
        yield 10.0


KINDS: Mapping[str, Callable[[np.random.Generator, float], Iterator[float]]] = {
    "train-like": train_like,
    "test-like": test_like,
    "long-tail": long_tail,
    "equal": equal,
}


def target_seconds(kind: str, rng: np.random.Generator, total: float) -> list[float]:
    """Draw durations up to a sum of `total` seconds, and shuffle them."""
    found: list[float] = []
    for seconds in KINDS[kind](rng, total):
        found.append(seconds)
        if sum(found) >= total:
            break
    return [found[i] for i in rng.permutation(len(found))]


def join(
    rng: np.random.Generator, utterances: list[Utterance], seconds: float, gaps: tuple[float, float] = GAPS
) -> tuple[np.ndarray, list[Utterance]]:
    """Join random utterances, with gaps of a shortest to a longest number of seconds, to about `seconds`."""
    rate = utterances[0].sample_rate
    shortest, longest = gaps
    chosen: list[Utterance] = []
    samples: list[np.ndarray] = []
    length = 0
    while True:
        one = utterances[rng.integers(len(utterances))]
        # Gaps of one length draw no number, so that such a corpus is the same whether lengths can differ or not.
        gap = round((rng.uniform(shortest, longest) if shortest < longest else shortest) * rate)
        longer = length + len(one.samples) + (gap if chosen else 0)
        if chosen and longer - seconds * rate > seconds * rate - length:
            return np.concatenate(samples), chosen
        if chosen:
            samples.append(rng.integers(-GAP_NOISE, GAP_NOISE, gap, endpoint=True).astype(np.int16))
        samples.append(one.samples)
        chosen.append(one)
        length = longer


def rows(
    kind: str,
    seconds: float,
    seed: int,
    speakers: Mapping[str, list[Utterance]],
    gaps: tuple[float, float] = GAPS,
    container: str = "flac",
) -> Iterator[dict[str, object]]:
    """Yield the rows of a corpus."""
    rng = np.random.default_rng(seed)
    for index, wanted in enumerate(target_seconds(kind, rng, seconds)):
        speaker = list(speakers)[rng.integers(len(speakers))]
        samples, chosen = join(rng, speakers[speaker], wanted, gaps)
        rate = chosen[0].sample_rate
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format=container.upper(), subtype=CONTAINERS[container])
        yield {
            "id": f"{kind}-{index:06d}",
            "audio": {"bytes": file.getvalue(), "path": f"{kind}-{index:06d}.{container}"},
            "text": " ".join(one.text for one in chosen),
            "speaker_id": speaker,
            "duration": len(samples) / rate,
            "parts": [one.id for one in chosen],
        }


def build(
    folder: Path,
    kind: str,
    *,
    minutes: float = 10,
    seed: int = 0,
    shards: int = 4,
    digits: str = DEMO_DIGITS,
    sample_rate: int | None = None,
    gaps: tuple[float, float] = GAPS,
    container: str = "flac",
    row_group_rows: int = ROW_GROUP_ROWS,
) -> list[Path]:
    """Write a corpus and return its shards."""
    found = list(rows(kind, minutes * 60, seed, read_utterances(digits, sample_rate), gaps, container))
    table = pa.Table.from_pylist(found, SCHEMA)
    folder.mkdir(parents=True, exist_ok=True)
    edges = [table.num_rows * k // shards for k in range(shards + 1)]
    names = [folder / f"{kind}-{k:05d}-of-{shards:05d}.parquet" for k in range(shards)]
    for name, first, end in zip(names, edges, edges[1:], strict=False):
        pq.write_table(table.slice(first, end - first), name, row_group_size=row_group_rows)
    return names


def add_digits(parser: argparse.ArgumentParser) -> None:
    """Add the options of the recordings that a corpus joins, for all parts that make one."""
    parser.add_argument("--digits", default=DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    parser.add_argument("--sample-rate", type=int, help="sample rate of the corpus; default: that of the digits")


def digits_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the values of these options for `build`."""
    return {"digits": args.digits, "seed": args.seed, "sample_rate": args.sample_rate}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a corpus."""
    add_digits(parser)
    parser.add_argument("--kind", choices=KINDS, default="test-like", help="distribution of durations")
    parser.add_argument("--minutes", type=float, default=10, help="minutes of audio")
    parser.add_argument("--shards", type=int, default=4, help="number of shards")
    parser.add_argument(
        "--gaps", type=float, nargs=2, default=GAPS, help="shortest and longest gap between recordings, in seconds"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")


def run(args: argparse.Namespace) -> None:
    """Build a corpus."""
    options = {"minutes": args.minutes, "shards": args.shards, "gaps": tuple(args.gaps), **digits_of(args)}
    names = build(args.out, args.kind, **options)
    seconds = np.concatenate([pq.read_table(name, columns=["duration"])["duration"].to_numpy() for name in names])
    print(
        f"{args.out}: {len(seconds):,} recordings in {len(names)} shards, {seconds.sum() / 60:.1f} minutes; "
        f"{seconds.min():.1f} to {seconds.max():.1f} s, mean {seconds.mean():.1f}, median {np.median(seconds):.1f}"
    )
