"""Cost of beam search: the label step of an actor with greedy decoding, and with a beam search.

    python -m benchmarks beams --repeats 5

Blocks of 12 recordings, labelled in turn by each way in one batch, on two threads, with a checkpoint of 12 layers of
width 768 and random weights. Random logits are the worst case of a search: no frame is certain, so none is left out.
The language model has 3-grams of random words. The least time of each way counts.

    python -m benchmarks beams --search

CPU time of the search alone, as processes beside a GPU do it, over 600 s of joined digits of the demo (`--seconds` a
recording) and over two such batches together, and how often the limit of tokens a frame changes a text: against a
search over all tokens of the vocabulary.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from benchmarks.inputs import checkpoints
from benchmarks.inputs.corpus import join, read_utterances
from benchmarks.tables import show, write_json
from raysp import Transcript
from raysp.models.loading import load_checkpoint
from raysp.models.tokenizers.described import CTCTokenizer
from raysp.ops.labelling import Labelling
from raysp.ops.rows import RowStatus, statuses_table, with_waves
from raysp.text.beams.search import LEAST_LOG_PROB, TopFrames
from raysp.text.beams.top_frames import KEPT_TOKENS
from tests.text.beams.frames_of_logits import top_frames

CEILING = 1.25
"""Of the time of beam search with a language model over that of greedy decoding."""
SEARCHED_SECONDS = 600
LETTERS = "EFGHINORSTUVWXZ"
HOT_WORDS = {"SEVEN": 2.0, "ONE TWO": 3.0}
DEMO = Path(__file__).parents[2] / "pipelines" / "demo"
CHECKPOINT, AUDIO = DEMO / "unispeech-digits-ctc", str(DEMO / "audio" / "*.parquet")


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
        name: Labelling(
            str(checkpoint), lambda loaded, output=output: [output.op(loaded.summary, loaded)], batch_seconds=1000
        )  # type: ignore[misc]
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


def frames_of_digits(checkpoint: Path, rows: int, seconds: float, kept: int) -> tuple[TopFrames, list[int]]:
    """Return the best tokens of the frames of joined digits, and the number of frames of each row."""
    loaded = load_checkpoint(checkpoint, dtype="float32", device="cpu")
    speakers = [*read_utterances(AUDIO, 16_000).values()]
    draw, found = np.random.default_rng(0), []
    for row in range(rows):
        utterances = speakers[row % len(speakers)]
        samples, _ = join(draw, utterances, seconds)
        wave = torch.from_numpy(np.asarray(samples, np.float32)[: round(16_000 * seconds)])[None]
        with torch.inference_mode():
            output = loaded.run(wave, torch.tensor([wave.shape[1]]), hidden_states=False)
        found.append(next(iter(output.heads.values()))["logits"][0])
    logits = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    blank = cast("CTCTokenizer", loaded.text_tokenizer).pad_token_id
    return top_frames(logits, blank=blank, kept=kept), [len(one) for one in found]


def measure_search(
    checkpoint: Path, lm: str, *, beams: int, repeats: int, seconds: float = 30
) -> list[dict[str, object]]:
    """Return CPU times of searches over joined digits, and texts that the limit of tokens changes."""
    num_rows = round(SEARCHED_SECONDS / seconds)
    loaded = load_checkpoint(checkpoint, dtype="float32", device="cpu")
    rows = []
    for name, options in {"beams": {}, "3-grams, hot words": {"lm": lm, "hot_words": HOT_WORDS}}.items():
        op = Transcript(beams=beams, **options).op(loaded.summary, loaded)  # type: ignore[arg-type]
        taken, texts = [], []
        for kept in (KEPT_TOKENS, loaded.summary.vocab_size - 1):  # type: ignore[operator]
            frames, counts = frames_of_digits(checkpoint, num_rows, seconds, kept)
            for batches in (1, 2):
                times = []
                for _ in range(repeats):
                    started = time.process_time()
                    found = op.texts.together([(frames, counts)] * batches)  # type: ignore[union-attr]
                    times.append(time.process_time() - started)
                taken.append(min(times))
            texts.append(found[0].columns[0])
        highest = np.maximum(frames.blanks, frames.log_probs[..., 0])[..., None]
        likely = (frames.log_probs >= highest + LEAST_LOG_PROB).sum(-1)
        likely[np.arange(likely.shape[1]) >= np.array(counts)[:, None]] = 0
        rows.append(
            {
                "search": name,
                "CPU ms": f"{1e3 * taken[0]:.0f}",
                "two together": f"{1e3 * taken[1]:.0f}",
                "frames": sum(counts),
                f"frames with more than {KEPT_TOKENS} likely tokens": int((likely > KEPT_TOKENS).sum()),
                "texts changed by the limit": sum(a != b for a, b in zip(*texts, strict=True)),
            }
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks beams", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=12, help="recordings in a batch")
    parser.add_argument("--seconds", type=float, help="seconds of the longest recording; 7, with --search 30")
    parser.add_argument("--beams", type=int, default=8, help="beams")
    parser.add_argument("--words", type=int, default=20_000, help="words of the language model")
    parser.add_argument("--ngrams", type=int, default=200_000, help="2-grams and 3-grams of the language model")
    parser.add_argument("--layers", type=int, default=12, help="number of layers")
    parser.add_argument("--hidden-size", type=int, default=768, help="width of the model")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--search", action="store_true", help="measure the search alone, over joined digits")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    args.seconds = args.seconds or (30.0 if args.search else 7.0)
    if args.search:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as name:
            lm = str(write_model(Path(name) / "words.arpa", words=args.words, ngrams=args.ngrams))
            found = measure_search(CHECKPOINT, lm, beams=args.beams, repeats=args.repeats, seconds=args.seconds)
        show(f"{SEARCHED_SECONDS} s in recordings of {args.seconds:g} s, 50 frames a second", found)
        if args.json:
            write_json(args.json, found)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = checkpoints.make(Path(name) / "model", layers=args.layers, hidden_size=args.hidden_size)
        lm = str(write_model(Path(name) / "words.arpa", words=args.words, ngrams=args.ngrams))
        ways = {
            "greedy": Transcript(),
            f"beams {args.beams}": Transcript(beams=args.beams),
            f"beams {args.beams}, 3-grams": Transcript(beams=args.beams, lm=lm),
            f"beams {args.beams}, 3-grams, hot words": Transcript(
                beams=args.beams, lm=lm, nbest=min(4, args.beams), hot_words=HOT_WORDS
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
