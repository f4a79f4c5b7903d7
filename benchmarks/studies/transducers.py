"""Parakeet transducers in both libraries, greedily: a published model's widths with random weights, float32, on CPUs.

    python -m benchmarks transducers --repeats 5

Both libraries run in turn on the same log-mels with the same weights, the whole model and, measured besides, the
encoder alone; their tokens are compared. The bias of the blank is set so that a frame has about `--tokens` tokens, as
speech has. The shortest time of each counts: CPU time on one thread, else wall time.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import show, write_json

KINDS = ("RNNT", "TDT")
MELS_A_SECOND = 100
FRAMES_WEIGH = 4.0
"""Deviation of frames for one of predictions: with less, the first token of RNN-T makes many more probable."""
Run = Callable[[], object]


@torch.no_grad()
def pair_of(kind: str, args: argparse.Namespace, features: Tensor) -> tuple[Any, Any]:
    """Return the model of transformers with random weights, and that of raysp with the same weights."""
    import transformers

    import raysp.models

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    flags = {"vocab_size": args.vocab_size, "blank_token_id": args.vocab_size - 1}
    encoder = {"num_hidden_layers": args.layers, "num_mel_bins": features.shape[2]}
    theirs = getattr(transformers, f"ParakeetFor{kind}")(
        getattr(transformers, f"Parakeet{kind}Config")(**flags, encoder_config=encoder)
    ).eval()
    beyond = [*range(args.vocab_size, len(theirs.joint.head.bias))]
    theirs.generation_config.update(decoder_start_token_id=args.vocab_size - 1, suppress_tokens=beyond or None)
    name = f"Parakeet{kind}Config"
    ours = getattr(raysp.models, f"ParakeetFor{kind}")(
        getattr(raysp.models.parakeet_transducers, name)(**flags, encoder_config=encoder)
    ).eval()
    ours.load_state_dict(theirs.state_dict())
    balance(ours, features, args.tokens)
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def balance(model: Any, features: Tensor, wanted: float) -> None:
    """Let the logits depend on frames more than on tokens, and set the bias of the blank for so many tokens a frame."""
    model.decoder.embedding.weight.mul_(20)
    frames = model(features).pooler_output
    predicted = model.decoder(torch.randint(0, model.blank, (1, 100)))
    weighed = ((model.encoder_projector, frames, FRAMES_WEIGH), (model.decoder.decoder_projector, predicted, 1.0))
    for layer, values, weight in weighed:
        mean, scale = values.mean((0, 1)), values.std() / weight
        layer.bias.sub_(mean).div_(scale)
        layer.weight.div_(scale)
    frames, bias_of = model(features).pooler_output, model.joint.head.bias
    counts = torch.full((len(features),), frames.shape[1])
    shares = {}
    low, high = 0.0, 6.0
    for _ in range(3):  # tokens make tokens more probable, so that their number falls within a small range
        for bias in torch.linspace(low, high, 21).tolist():
            bias_of[model.blank] = bias
            tokens = model.search(frames, counts).tokens_BS
            shares[bias] = int((tokens != model.blank).sum()) / counts.sum().item()
        best = min(shares, key=lambda bias: abs(shares[bias] - wanted))
        low, high = best - (high - low) / 20, best + (high - low) / 20
    bias_of[model.blank] = best


def runs_of(theirs: Any, ours: Any, features: Tensor) -> dict[str, tuple[Run, Run]]:
    """Return what is measured of both."""
    return {
        "whole": (lambda: theirs.generate(features).sequences, lambda: ours.generate(features).sequences),
        "encoder": (lambda: theirs.get_audio_features(features), lambda: ours(features)),
    }


def time_pair(pair: tuple[Run, Run], repeats: int) -> tuple[float, float]:
    """Return the shortest time of each in seconds, measured in turn after one of each for warming up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        order = (0, 1) if repeat % 2 == 0 else (1, 0)
        for which in order:
            started = clock()
            pair[which]()
            taken[which].append(clock() - started)
    return min(taken[0][1:]), min(taken[1][1:])


def steps_that_agree(theirs: Any, ours: Any, num_frames: int) -> float:
    """Return the share of the steps before the end of each row that are equal; theirs goes on behind it."""
    begins = theirs.durations.cumsum(1) - theirs.durations
    width = min(theirs.sequences.shape[1], ours.sequences.shape[1])
    is_inside = (begins < num_frames)[:, :width]
    is_equal = theirs.sequences[:, :width] == ours.sequences[:, :width]
    return float(is_equal[is_inside].float().mean())


def measure(kind: str, args: argparse.Namespace) -> list[dict[str, object]]:
    """Return a table row for the whole model, its encoder, and the search as their difference."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(args.batch, round(args.seconds * MELS_A_SECOND), 128, generator=generator)
    theirs, ours = pair_of(kind, args, features)
    with torch.inference_mode():
        path = ours.generate(features)
        same = steps_that_agree(theirs.generate(features), path, frames := ours(features).pooler_output.shape[1])
        taken = {part: time_pair(pair, args.repeats) for part, pair in runs_of(theirs, ours, features).items()}
    is_token = (path.sequences != ours.blank) & (path.sequences != ours.config.pad_token_id)
    taken["search"] = (taken["whole"][0] - taken["encoder"][0], taken["whole"][1] - taken["encoder"][1])
    return [
        {
            "model": kind,
            "part": part,
            "transformers ms": round(1000 * both[0]),
            "raysp ms": round(1000 * both[1]),
            "ratio": f"{both[0] / both[1]:.2f}",
            "tokens a frame": f"{float(is_token.sum()) / args.batch / frames:.2f}",
            "equal steps": f"{same:.0%}",
        }
        for part, both in taken.items()
    ]


def main(argv: list[str]) -> None:
    """Print the time of each library, and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks transducers", description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="rows per batch")
    parser.add_argument("--seconds", type=float, default=10, help="seconds of audio per row")
    parser.add_argument("--tokens", type=float, default=0.3, help="tokens per frame of 80 ms")
    parser.add_argument("--vocab-size", type=int, default=1025, help="tokens in the vocabulary")
    parser.add_argument("--layers", type=int, default=6, help="layers of the encoder")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message="Using the model-agnostic default `max_length`")
    found = [row for kind in KINDS for row in measure(kind, args)]
    show(f"{args.batch} x {args.seconds:g} s, {args.layers} layers, {args.vocab_size} tokens", found)
    if args.json:
        write_json(args.json, found)
