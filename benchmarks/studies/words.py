"""Accuracy of texts and word times, in rows cut into windows and in rows of one window.

    python -m benchmarks words
    python -m benchmarks words --lengths 4x60,15x20,70x6,900x2,3600x1

Digits of one speaker are joined to recordings of known words at known places. Every recording is labelled by the ops of
a run, without Ray: in windows, and also as one window up to `--whole-below` seconds. The times of each correct word are
compared with its place. Runs with and without word times are timed in turn.
"""

import argparse
import io
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import pyarrow as pa
import soundfile

from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.tables import show, write_json

GAP_SECONDS = (0.08, 0.45)
GAP_NOISE = 8
WINDOW_SECONDS = 30.0
ONE_WINDOW = 1e6


@dataclass(frozen=True)
class Spoken:
    """A recording with the places of its words."""

    encoded: bytes
    seconds: float
    words: Sequence[Mapping[str, object]]


def speak(rng: np.random.Generator, utterances: list[corpus.Utterance], seconds: float) -> Spoken:
    """Join random utterances of one speaker with gaps, and record their places."""
    rate = utterances[0].sample_rate
    samples: list[np.ndarray] = []
    words: list[dict[str, object]] = []
    length = 0
    while length < seconds * rate:
        gap = rng.integers(-GAP_NOISE, GAP_NOISE, round(rng.uniform(*GAP_SECONDS) * rate), endpoint=True)
        one = utterances[rng.integers(len(utterances))]
        samples += [gap.astype(np.int16), one.samples]
        start = length + len(gap)
        length = start + len(one.samples)
        words.append({"word": one.text, "start": start / rate, "end": length / rate})
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(samples), rate, format="FLAC", subtype="PCM_16")
    return Spoken(file.getvalue(), length / rate, words)


class Labeller:
    """Label recordings with the ops of a run."""

    def __init__(self, checkpoint: str, window_seconds: float, *, words: bool) -> None:
        import raysp
        from raysp.audio.waveforms import Windowing
        from raysp.models.loading import check_checkpoint
        from raysp.ops.decoding import Decoding
        from raysp.ops.labelling import Labelling
        from raysp.ops.late_steps import Joining

        transcript = raysp.Transcript(words=words)
        summary = check_checkpoint(checkpoint)
        windowing = Windowing.of(
            sample_rate=summary.sample_rate,
            frame_stride=summary.frame_stride,
            min_samples=summary.receptive_samples,
            window_seconds=window_seconds,
            overlap_seconds=5,
        )
        self.decoding = Decoding(audio="audio", windowing=windowing, block_seconds=600)
        self.op = Labelling(
            checkpoint,
            lambda loaded: [transcript.op(loaded.summary, loaded)],
            batch_seconds=60,
            window_seconds=window_seconds,
        )
        self.joining = Joining([transcript.op(summary)], summary.sample_rate)

    def __call__(self, recordings: Iterable[Spoken]) -> list[dict[str, object]]:
        """Return the label rows of recordings, in order."""
        from raysp.labelling.assembly import join_windows

        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        audio = pa.array([{"bytes": one.encoded, "path": None} for one in recordings], kind)
        blocks = [self.op(block)[0] for block in self.decoding(pa.table({"audio": audio}), 0)]
        labels = join_windows(pa.concat_tables(blocks), self.joining)
        return labels.sort_by("row").to_pylist()


def compare(recordings: Sequence[Spoken], labels: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Count word errors, and measure the distances of correct words from their places."""
    references = [" ".join(str(word["word"]).lower() for word in one.words) for one in recordings]
    found = jiwer.process_words(references, [str(label["pred_text"]).lower() for label in labels])
    overlaps, starts, ends = [], [], []
    for placed, heard in _pairs(found, recordings, labels):
        overlaps.append(heard["start"] < placed["end"] and placed["start"] < heard["end"])
        starts.append(1000 * abs(heard["start"] - placed["start"]))
        ends.append(1000 * abs(heard["end"] - placed["end"]))
    return {
        "rows": len(recordings),
        "minutes": round(sum(one.seconds for one in recordings) / 60, 1),
        "words": sum(len(one.words) for one in recordings),
        "WER %": round(100 * found.wer, 2),
        **({"overlap %": round(100 * float(np.mean(overlaps)), 2)} if overlaps else {}),
        **_spread("start", starts),
        **_spread("end", ends),
    }


def _spread(name: str, distances: Sequence[float]) -> dict[str, object]:
    """Return statistics of distances in milliseconds; empty without a correct word."""
    if not distances:
        return {}
    return {
        f"{name} ms, median": round(statistics.median(distances)),
        f"{name} ms, 95 %": round(float(np.percentile(distances, 95))),
    }


def _pairs(
    found: "jiwer.WordOutput", recordings: Sequence[Spoken], labels: Sequence[Mapping[str, object]]
) -> Iterator[tuple[Mapping[str, float], Mapping[str, float]]]:
    for chunks, one, label in zip(found.alignments, recordings, labels, strict=True):
        words: Sequence[Mapping[str, float]] = label["pred_words"]  # type: ignore[assignment]
        for chunk in (chunk for chunk in chunks if chunk.type == "equal"):
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                yield one.words[chunk.ref_start_idx + offset], words[chunk.hyp_start_idx + offset]  # type: ignore[misc]


def cost_of_words(checkpoint: str, recordings: Sequence[Spoken], repeats: int) -> float:
    """Return the relative increase of CPU time caused by words, as the median of turns."""
    plain, asked = (Labeller(checkpoint, WINDOW_SECONDS, words=words) for words in (False, True))
    plain(recordings[:2])
    asked(recordings[:2])
    ratios = []
    for _ in range(repeats):
        seconds = []
        for labeller in (plain, asked):
            started = time.process_time()
            labeller(recordings)
            seconds.append(time.process_time() - started)
        ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios) - 1


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure every length, in windows and as one window, and the cost of words."""
    rng = np.random.default_rng(args.seed)
    speakers = list(corpus.read_utterances(args.digits).values())
    short: list[Spoken] = []
    long: list[Spoken] = []
    for part in args.lengths.split(","):
        seconds, count = part.split("x")
        for number in range(int(count)):
            one = speak(rng, speakers[number % len(speakers)], float(seconds))
            (short if one.seconds <= WINDOW_SECONDS else long).append(one)
    windowed = Labeller(args.checkpoint, WINDOW_SECONDS, words=True)
    whole = [one for one in long if one.seconds <= args.whole_below]
    groups = [
        ("one window each", short, windowed),
        ("in windows", long, windowed),
        (f"in windows, to {args.whole_below:g} s", whole, windowed),
        ("the same as one window", whole, Labeller(args.checkpoint, ONE_WINDOW, words=True)),
    ]
    rows = [{"": name, **compare(group, labeller(group))} for name, group, labeller in groups if group]
    show("Texts and word times of joined digits", rows)
    cost = cost_of_words(args.checkpoint, [*short, *long][: args.timed_rows], args.repeats)
    show("What asking for words costs", [{"CPU time": f"{100 * cost:+.1f} %", "turns": args.repeats}])
    return {"words": rows, "cost": cost}


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks words", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="4x40,15x20,70x6,300x2,3600x1", help="seconds x recordings, ...")
    parser.add_argument(
        "--whole-below", type=float, default=320, help="label recordings up to these seconds also as one window"
    )
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--checkpoint", default=str(BUNDLED), help="checkpoint folder")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--timed-rows", type=int, default=60, help="rows for the cost of word times")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
