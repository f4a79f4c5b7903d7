"""Forced alignment: places of words, scores of right and wrong texts, and speed.

    python -m benchmarks alignment
    python -m benchmarks alignment --digits "CORPUS/*.parquet" --lengths 10x60,40x10,3600x1

Digits of one speaker are joined to recordings of known words at known places, and run through the model as a whole
up to 60 s, longer ones in parts. Speed is that of the alignment alone, on one thread, in CPU time.

Question of docs/evidence/performance.md, "Beam search, alignment and speech":
how fast and how exact is forced alignment?
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.studies.words import Spoken, speak
from benchmarks.tables import show, write_json
from raysp.audio import decode
from raysp.models.features.processors import as_float, pad
from raysp.models.loading import LoadedCheckpoint, load_checkpoint
from raysp.ops.aligning import spelling_of
from raysp.text.alignment import Alignment, align
from raysp.text.spelling import Spelling

PART_SECONDS = 60
QUIET = 0.1
"""Share of the loudest sample of a clip at which its speech begins."""


@dataclass(frozen=True)
class Heard:
    """A recording with its log-probabilities (T, V)."""

    spoken: Spoken
    log_probs: Tensor

    @property
    def text(self) -> str:
        """The words that were joined."""
        return " ".join(str(word["word"]) for word in self.spoken.words)


class Aligner:
    """Alignment with one checkpoint."""

    def __init__(self, checkpoint: str) -> None:
        self.loaded: LoadedCheckpoint = load_checkpoint(Path(checkpoint), dtype="float32", device="cpu")
        tokenizer = self.loaded.text_tokenizer
        self.blank = tokenizer.pad_token_id
        self.frame_seconds = self.loaded.summary.frame_seconds
        self.spelling: Spelling = spelling_of(tokenizer, self.loaded.summary.vocab_size or 0)

    @torch.inference_mode()
    def hear(self, spoken: Spoken) -> Heard:
        """Run the model over a recording."""
        rate = self.loaded.sample_rate
        wave = decode(spoken.encoded, sample_rate=rate)
        parts = [wave[first : first + PART_SECONDS * rate] for first in range(0, len(wave), PART_SECONDS * rate)]
        found = []
        for part in parts:
            if len(part) >= self.loaded.summary.min_samples:
                waves, num_samples = pad([part])
                features = self.loaded.feature_extractor.extract(as_float(waves), num_samples)
                found.append(self.loaded.model(**features)["logits"][0].float().log_softmax(-1))
        return Heard(spoken, torch.cat(found))

    def __call__(self, rows: Sequence[tuple[Heard, str]], *, wildcard: bool = False) -> list[Alignment | None]:
        """Align a text with each recording, all of them as one batch."""
        targets = [self.spelling(text).target(wildcard=wildcard) for _, text in rows]
        frames = [len(one.log_probs) for one, _ in rows]
        padded = torch.nn.utils.rnn.pad_sequence([one.log_probs for one, _ in rows], batch_first=True)
        return align(padded, frames, targets, blank=self.blank)


def starts(aligner: Aligner, heard: Sequence[Heard]) -> Iterator[tuple[float, float]]:
    """Yield the distance of each word's start from its clip's start, and from the start of speech in it, in seconds."""
    for one in heard:
        [found] = aligner([(one, one.text)])
        if found is None:
            continue
        wave = np.abs(decode(one.spoken.encoded, sample_rate=aligner.loaded.sample_rate).astype(np.float32))
        for word, places in zip(one.spoken.words, aligner.spelling(one.text).places(), strict=True):
            start = found.first_frames[places[0].start] * aligner.frame_seconds
            begin, end = (round(float(word[edge]) * aligner.loaded.sample_rate) for edge in ("start", "end"))  # type: ignore[arg-type]
            clip = wave[begin:end]
            onset = int(np.argmax(clip > QUIET * clip.max())) / aligner.loaded.sample_rate
            clip_start = float(word["start"])  # type: ignore[arg-type]
            yield start - clip_start, start - clip_start - onset


def _another(rng: np.random.Generator, words: Sequence[str], text: str) -> str:
    return str(rng.choice([word for word in words if word != text]))


def wrong_texts(rng: np.random.Generator, heard: Sequence[Heard]) -> dict[str, Callable[[Heard], str]]:
    """Return ways to make the text of a recording wrong."""
    words = sorted({word for one in heard for word in one.text.split()})

    def all_words(one: Heard) -> str:
        return " ".join(_another(rng, words, word) for word in one.text.split())

    def half(one: Heard) -> str:
        said = one.text.split()
        return " ".join(said[: max(1, len(said) // 2)])

    def one_word(one: Heard) -> str:
        said = one.text.split()
        place = int(rng.integers(len(said)))
        return " ".join([*said[:place], _another(rng, words, said[place]), *said[place + 1 :]])

    def without(one: Heard) -> str:
        said = one.text.split()
        place = int(rng.integers(len(said)))
        return " ".join(said[:place] + said[place + 1 :])

    return {"all words differ": all_words, "the second half is missing": half, "one word differs": one_word,
            "one word is missing": without}  # fmt: skip


def separation(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return the largest share of texts that one threshold of the score judges correctly."""
    scores = np.concatenate([right, wrong])
    return max(
        float(np.mean(np.concatenate([np.array(right) >= one, np.array(wrong) < one]))) for one in scores
    )  # fmt: skip


def scores(aligner: Aligner, rows: Sequence[tuple[Heard, str]]) -> dict[str, list[float]]:
    """Return two scores of each text: that of the column, and the mean log-probability of tokens."""
    found = [aligner([row])[0] for row in rows]
    lowest = -1e3
    return {
        "less the best path, by token": [lowest if one is None else one.score for one in found],
        "mean of tokens": [lowest if one is None else float(one.token_scores.mean()) for one in found],
    }


def speed(aligner: Aligner, heard: Sequence[Heard], batch: int) -> float:
    """Return seconds of audio aligned in a second of CPU time."""
    groups = [heard[first : first + batch] for first in range(0, len(heard), batch)]
    best = 0.0
    for _ in range(3):
        started = time.process_time()
        for group in groups:
            aligner([(one, one.text) for one in group])
        best = max(best, sum(one.spoken.seconds for one in heard) / (time.process_time() - started))
    return best


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure places, scores and speed."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    speakers = list(corpus.read_utterances(args.digits).values())
    aligner = Aligner(args.checkpoint)
    groups: dict[str, list[Heard]] = {}
    for part in args.lengths.split(","):
        seconds, count = part.split("x")
        spoken = [speak(rng, speakers[number % len(speakers)], float(seconds)) for number in range(int(count))]
        groups[seconds] = [aligner.hear(one) for one in spoken]
    every = [one for group in groups.values() for one in group]
    errors = 1000 * np.abs(np.array(list(starts(aligner, every))))
    places = [
        {"start of": name, "median, ms": round(float(np.median(of))), "95 %, ms": round(float(np.quantile(of, 0.95)))}
        for name, of in zip(("the clip", "its speech"), errors.T, strict=True)
    ]
    show(f"Starts of {len(errors)} words", places)
    short = [one for one in every if one.spoken.seconds <= PART_SECONDS]
    right = scores(aligner, [(one, one.text) for one in short])
    judged = [
        {"wrong text": name} | {kind: f"{100 * separation(right[kind], found[kind]):.1f} %" for kind in right}
        for name, wrong in wrong_texts(rng, short).items()
        for found in [scores(aligner, [(one, wrong(one)) for one in short])]
    ]
    show(f"Texts judged correctly by the best threshold, {len(short)} right and {len(short)} wrong", judged)
    speeds = [
        {"seconds": seconds, "batch": batch, "times real time": round(speed(aligner, group, batch))}
        for seconds, group in groups.items()
        for batch in (1, 8)
        if batch <= len(group)
    ]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    show(f"Speed of the alignment on one thread; {memory} MB resident at most", speeds)
    return {"places": places, "scores": judged, "speed": speeds}


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks alignment", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="6x50,25x50", help="seconds x recordings, ...")
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--checkpoint", default=str(BUNDLED), help="checkpoint folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
