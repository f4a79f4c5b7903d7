"""Cost of beam search: the label step of an actor with greedy decoding, and with a beam search.

    python -m benchmarks beams --repeats 5

Blocks of 12 recordings, labelled in turn by each way in one batch, on two threads, with a checkpoint of 12 layers of
width 768 and random weights. Random logits are the worst case of a search: no frame is certain, so none is left out.
The language model has 3-grams of random words. The least time of each way counts.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from benchmarks.inputs import checkpoints
from benchmarks.tables import show, write_json
from raysp import Transcript
from raysp.ops.labelling import Labelling
from raysp.ops.rows import RowStatus, statuses_table, with_waves

CEILING = 1.25
"""Of the time of beam search with a language model over that of greedy decoding."""
LETTERS = "EFGHINORSTUVWXZ"


def write_model(path: Path, *, words: int, ngrams: int, seed: int = 0) -> Path:
    """Write a 3-gram model of random words with random probabilities."""
    draw = random.Random(seed)
    texts = sorted({"".join(draw.choices(LETTERS, k=draw.randint(1, 8))) for _ in range(words)})
    bigrams = sorted({(draw.choice(texts), draw.choice(texts)) for _ in range(ngrams)})
    trigrams = sorted({(*draw.choice(bigrams), draw.choice(texts)) for _ in range(ngrams)})
    unigrams = [("<unk>",), ("<s>",), ("</s>",), *((text,) for text in texts)]
    sections: Sequence[Sequence[tuple[str, ...]]] = (unigrams, bigrams, trigrams)
    lines = ["\\data\\", *(f"ngram {order}={len(section)}" for order, section in enumerate(sections, 1)), ""]
    for order, section in enumerate(sections, 1):
        backoff = "\t-0.3" if order < len(sections) else ""
        lines += [
            f"\\{order}-grams:",
            *(f"{-draw.uniform(0.5, 5):.4f}\t{' '.join(one)}{backoff}" for one in section),
            "",
        ]
    path.write_text("\n".join([*lines, "\\end\\", ""]))
    return path


def block(rows: int, seconds: float) -> pa.Table:
    """Return windows of noise of nearly equal length."""
    draw = np.random.default_rng(0)
    lengths = np.linspace(seconds, 0.9 * seconds, rows) * 16_000
    waves = [draw.normal(0, 0.1, round(length)).astype(np.float32) for length in lengths]
    return with_waves(statuses_table([RowStatus(row) for row in range(rows)]), waves)


def measure(
    ways: Mapping[str, Transcript], checkpoint: Path, table: pa.Table, *, repeats: int, threads: int
) -> dict[str, list[float]]:
    """Return the times of each way in seconds, without the first."""
    torch.set_num_threads(threads)
    steps = {
        name: Labelling(str(checkpoint), lambda loaded, output=output: [output.op(loaded)], batch_seconds=1000)  # type: ignore[misc]
        for name, output in ways.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step(table)
            if repeat:
                taken[name].append(time.perf_counter() - started)
    return taken


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks beams", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=12, help="recordings in a batch")
    parser.add_argument("--seconds", type=float, default=7, help="seconds of the longest recording")
    parser.add_argument("--beams", type=int, default=8, help="beams")
    parser.add_argument("--words", type=int, default=20_000, help="words of the language model")
    parser.add_argument("--ngrams", type=int, default=200_000, help="2-grams and 3-grams of the language model")
    parser.add_argument("--layers", type=int, default=12, help="number of layers")
    parser.add_argument("--hidden-size", type=int, default=768, help="width of the model")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = checkpoints.make(Path(name) / "model", layers=args.layers, hidden_size=args.hidden_size)
        lm = str(write_model(Path(name) / "words.arpa", words=args.words, ngrams=args.ngrams))
        ways = {
            "greedy": Transcript(),
            f"beams {args.beams}": Transcript(beams=args.beams),
            f"beams {args.beams}, 3-grams": Transcript(beams=args.beams, lm=lm),
            f"beams {args.beams}, 3-grams, hot words": Transcript(
                beams=args.beams, lm=lm, nbest=min(4, args.beams), hot_words={"SEVEN": 2.0, "ONE TWO": 3.0}
            ),
        }
        taken = measure(ways, folder, block(args.rows, args.seconds), repeats=args.repeats, threads=args.threads)
    rows = [
        {"way": way, "s": f"{min(seconds):.2f}", "of greedy": f"{min(seconds) / min(taken['greedy']):.3f}"}
        for way, seconds in taken.items()
    ]
    show(f"{args.rows} recordings, {args.layers} x {args.hidden_size}, at most {CEILING} wanted", rows)
    if args.json:
        write_json(args.json, taken)


if __name__ == "__main__":
    main()
