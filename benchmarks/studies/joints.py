"""Words lost or doubled where the windows of a longer row meet, for texts that have no times.

    python -m benchmarks joints --digits "CORPUS/*.parquet" --checkpoint CHECKPOINT

Windows of joined digits, whose words have known places, are written one by one, as a text decoder does. Writer is a CTC
checkpoint, so that only the joints count. Compared are cuts between words at their known places, at quiet points as
`raysp.audio.waveforms` makes them, every so many seconds, and windows that overlap, whose texts are merged at their
longest common run of words.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.tables import show, write_json
from raysp.audio.waveforms import Windowing, cut_windows

RATE = 16_000
Floats = npt.NDArray[np.float32]
Write = Callable[[Floats], list[str]]
HEARD = 10 ** (-25 / 20)
"""Level of the sound of a word, of the mean level of its recording."""


@dataclass(frozen=True)
class Spoken:
    """A recording with the places of its words, in samples."""

    wave: Floats
    clean: Floats
    """The same without noise."""
    words: Sequence[tuple[str, int, int]]


def speak(rng: np.random.Generator, speakers: Sequence[list[corpus.Utterance]], seconds: float, noise: float) -> Spoken:
    """Join digits of one speaker, with white noise so many dB below them."""
    utterances = speakers[rng.integers(len(speakers))]
    samples, chosen = corpus.join(rng, utterances, seconds)
    words, place = [], 0
    for one in chosen:
        words.append((one.text.upper(), place, place + len(one.samples)))
        place += len(one.samples) + round(corpus.GAP_SECONDS * RATE)
    clean = samples.astype(np.float32) / 32768
    level = np.sqrt((clean**2).mean()) * 10 ** (-noise / 20)
    return Spoken(clean + level * rng.standard_normal(len(clean), np.float32), clean, words)


def is_cut(spoken: Spoken, joint: int) -> bool:
    """Return whether a joint has sound of one word on both sides."""
    least = HEARD * np.sqrt((spoken.clean**2).mean())

    def heard(wave: Floats) -> bool:
        return len(wave) > RATE // 50 and float(np.sqrt((wave**2).mean())) > least

    around = [(a, b) for _, a, b in spoken.words if a < joint < b]
    return any(heard(spoken.clean[a:joint]) and heard(spoken.clean[joint:b]) for a, b in around)


def merged(before: list[str], after: list[str], most: int) -> list[str]:
    """Join texts of overlapping windows in the middle of their longest common run among `most` words."""
    tail, head = before[-most:], after[:most]
    run = SequenceMatcher(None, tail, head, autojunk=False).find_longest_match()
    kept, half = len(before) - len(tail) + run.a, (run.size + 1) // 2
    return [*before[: kept + half], *after[run.b + half :]] if run.size else before + after


def _between_words(spoken: Spoken, seconds: float) -> Iterator[tuple[int, int]]:
    first = 0
    for (_, _, end), (_, start, _) in zip(spoken.words, spoken.words[1:], strict=False):
        if end - first > seconds * RATE:
            yield first, (first := (end + start) // 2)
    yield first, len(spoken.wave)


def _at_quiet_points(spoken: Spoken, windowing: Windowing) -> Iterator[tuple[int, int]]:
    first = 0
    for window, _ in cut_windows(iter([spoken.wave]), windowing):
        yield first, (first := first + len(window))


def _every(spoken: Spoken, seconds: float, overlap: float) -> Iterator[tuple[int, int]]:
    step = int((seconds - overlap) * RATE)
    for first in range(0, max(1, len(spoken.wave) - int(overlap * RATE)), step):
        yield first, min(len(spoken.wave), first + int(seconds * RATE))


def compared(all_spoken: Sequence[Spoken], write: Write, seconds: float, overlap: float) -> list[dict[str, object]]:
    """Return a row of the table for each way to cut."""
    from jiwer import process_words

    windowing = Windowing.of(
        sample_rate=RATE,
        frame_stride=320,
        min_samples=400,
        window_seconds=seconds,
        overlap_seconds=overlap,
        at_quiet_points=True,
    )
    ways: dict[str, Callable[[Spoken], Iterator[tuple[int, int]]]] = {
        "between words": lambda one: _between_words(one, seconds - overlap),
        "quiet points": lambda one: _at_quiet_points(one, windowing),
        "every so often": lambda one: _every(one, seconds - overlap / 2, 0),
        "overlap, merged": lambda one: _every(one, seconds, overlap),
    }
    found: list[dict[str, object]] = []
    for name, way in ways.items():
        joints = cut = errors = lost = doubled = 0
        for spoken in all_spoken:
            text: list[str] = []
            windows = list(way(spoken))
            for number, (first, end) in enumerate(windows):
                new = write(spoken.wave[first:end])
                share = (windows[number - 1][1] - first) / (end - first) if number else 0
                text = merged(text, new, 2 + round(1.5 * share * len(new))) if share else text + new
            joints += len(windows) - 1
            cut += sum(is_cut(spoken, first) for first, _ in windows[1:])
            words = process_words(" ".join(word for word, _, _ in spoken.words), " ".join(text))
            errors += words.substitutions + words.deletions + words.insertions
            lost, doubled = lost + words.deletions, doubled + words.insertions
        figures = {"joints": joints, "words cut": cut, "errors": errors, "lost": lost, "doubled": doubled}
        found.append({"windows": f"{seconds:g}/{overlap:g}", "cut": name, **figures})
    return found


def writer(checkpoint: str) -> Write:
    """Return a function that writes the words of a wave with a CTC checkpoint."""
    import torch

    from raysp.models import load_checkpoint

    loaded = load_checkpoint(checkpoint)

    @torch.inference_mode()
    def write(wave: Floats) -> list[str]:
        features = loaded.feature_extractor.extract(torch.from_numpy(wave.copy())[None], torch.tensor([len(wave)]))
        return str(loaded.text_tokenizer.decode(loaded.model(**features).logits[0].argmax(-1))).upper().split()

    return write


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks joints", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--checkpoint", default=str(BUNDLED), help="CTC checkpoint that writes the texts")
    parser.add_argument("--recordings", type=int, default=8, help="number of recordings")
    parser.add_argument("--seconds", type=float, default=90, help="length of each")
    parser.add_argument("--noise", type=float, nargs="+", default=[30, 10], help="dB of white noise below the speech")
    parser.add_argument("--windows", nargs="+", default=["30/5", "10/2", "6/1"], help="window/overlap in seconds")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    speakers, write, results = list(corpus.read_utterances(args.digits, RATE).values()), writer(args.checkpoint), []
    for noise in args.noise:
        rng = np.random.default_rng(0)
        spoken = [speak(rng, speakers, args.seconds, noise) for _ in range(args.recordings)]
        rows = []
        for given in args.windows:
            seconds, overlap = map(float, given.split("/"))
            rows += compared(spoken, write, seconds, overlap)
        show(f"{sum(len(one.words) for one in spoken)} words, noise {noise:g} dB below", rows)
        results += [{"noise": noise, **row} for row in rows]
    if args.json:
        write_json(args.json, results)


if __name__ == "__main__":
    main()
