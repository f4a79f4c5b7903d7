"""Long rows of transducers: windows searched alone, or one search whose state goes on from window to window.

    python -m benchmarks carried --checkpoint TRANSDUCER --digits "CORPUS/*.parquet"

Recordings of joined digits are encoded in overlapping windows, of which each owns the frames up to the middle of its
overlaps. "alone" searches each window and keeps the tokens that begin in its frames, as a run does; "carried" searches
the frames that windows own, one behind the other, with the state of the prediction network; "whole" encodes and
searches the recording in one piece. Errors are those of words.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import corpus
from benchmarks.studies.joints import RATE, Floats, Spoken, speak
from benchmarks.tables import show, write_json

WAYS = ("alone", "carried", "whole")


class Writer:
    """Texts of a transducer."""

    def __init__(self, checkpoint: str) -> None:
        from raysp.models import load_checkpoint

        loaded = load_checkpoint(checkpoint)
        self.model: Any = loaded.model
        self.extractor, self.tokenizer = loaded.feature_extractor, loaded.text_tokenizer
        self.stride: int = self.model.frame_stride

    def frames(self, wave: Floats) -> Tensor:
        """Return the projected frames of a wave (T, J)."""
        features = self.extractor.extract(torch.from_numpy(wave.copy())[None], torch.tensor([len(wave)]))
        found: Tensor = self.model(**features).pooler_output[0]
        return found

    def tokens(self, frames: Tensor, first: int, end: int) -> list[int]:
        """Return the tokens that begin within frames from `first` up to `end`."""
        path = self.model.search(frames[None], torch.tensor([len(frames)]))
        left_out = (self.model.blank, self.tokenizer.pad_token_id)
        steps = zip(path.tokens_BS[0].tolist(), path.frames_BS[0].tolist(), strict=True)
        return [token for token, frame in steps if first <= frame < end and token not in left_out]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens."""
        return str(self.tokenizer.decode_collapsed(tokens)).lower()


def windows(num_frames: int, seconds: float, overlap: float, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield windows as first frame, end, and the first and the end of the frames that they own."""
    length, shared = round(seconds * RATE / stride), round(overlap * RATE / stride)
    starts = [*range(0, max(1, num_frames - shared), length - shared)]
    joints = [0, *(start + shared // 2 for start in starts[1:]), num_frames]
    for start, (first, end) in zip(starts, pairwise(joints), strict=True):
        yield start, min(num_frames, start + length), first, end


def texts(writer: Writer, spoken: Spoken, seconds: float, overlap: float) -> dict[str, str]:
    """Return the text of a recording by each way."""
    num_frames = writer.model.num_frames(len(spoken.wave))
    alone: list[int] = []
    owned = []
    for start, stop, first, end in windows(num_frames, seconds, overlap, writer.stride):
        frames = writer.frames(spoken.wave[start * writer.stride : stop * writer.stride])
        alone += writer.tokens(frames, first - start, end - start)
        owned.append(frames[first - start : end - start])
    carried, whole = torch.cat(owned), writer.frames(spoken.wave)
    found = {"carried": writer.tokens(carried, 0, len(carried)), "whole": writer.tokens(whole, 0, len(whole))}
    return {name: writer.text(tokens) for name, tokens in {"alone": alone, **found}.items()}


def compared(writer: Writer, recordings: Sequence[Spoken], seconds: float, overlap: float) -> list[dict[str, object]]:
    """Return a row of the table for each way."""
    import jiwer

    found = [texts(writer, one, seconds, overlap) for one in recordings]
    references = [" ".join(word.lower() for word, _, _ in one.words) for one in recordings]
    rows: list[dict[str, object]] = []
    for way in WAYS:
        words = jiwer.process_words(references, [one[way] for one in found])
        total = words.hits + words.substitutions + words.deletions
        counts = {"lost": words.deletions, "doubled": words.insertions, "others": words.substitutions}
        rows.append(
            {"window": f"{seconds:g}/{overlap:g}", "search": way, "words": total, **counts, "WER": f"{words.wer:.1%}"}
        )
    return rows


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks carried", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="transducer of digits")
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--recordings", type=int, default=8, help="number of recordings")
    parser.add_argument("--seconds", type=float, default=90, help="length of each")
    parser.add_argument("--noise", type=float, default=30, help="dB of white noise below the speech")
    parser.add_argument("--windows", nargs="+", default=["30/5", "10/2", "6/1"], help="window/overlap in seconds")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    rng, writer = np.random.default_rng(0), Writer(args.checkpoint)
    speakers = list(corpus.read_utterances(args.digits, RATE).values())
    recordings = [speak(rng, speakers, args.seconds, args.noise) for _ in range(args.recordings)]
    sizes = [[float(one) for one in given.split("/")] for given in args.windows]
    rows = [row for seconds, overlap in sizes for row in compared(writer, recordings, seconds, overlap)]
    show(f"{args.recordings} recordings of {args.seconds:g} s, noise {args.noise:g} dB below", rows)
    if args.json:
        write_json(args.json, rows)


if __name__ == "__main__":
    main()
