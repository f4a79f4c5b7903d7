"""Text generation in both libraries: a UniSpeech encoder and a BART decoder of 6 x 512 with random weights.

    python -m benchmarks generation --repeats 3

Both libraries run in turn, with the same weights; their tokens are compared. The shortest time of each counts: CPU
time on one thread, else wall time. Most of it is the loop over tokens, since the encoder has two layers.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import show, write_json

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beams 4": {"num_beams": 4},
}


@dataclass
class Taken:
    """Times in seconds of one library for one decoding method."""

    library: str
    way: str
    seconds: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        """Time of the fastest repeat, which is the least disturbed by other programs."""
        return min(self.seconds)


def make(folder: Path, *, vocab_size: int, layers: int, width: int, seed: int = 0) -> None:
    """Write a speech-encoder-decoder with random weights that never ends a text early."""
    from raysp.models import BartConfig, SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel, UniSpeechConfig

    encoder = UniSpeechConfig(
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        feat_extract_norm="layer",
        conv_bias=True,
    )
    decoder = BartConfig(
        vocab_size=vocab_size,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        decoder_attention_heads=width // 64,
        encoder_attention_heads=width // 64,
        decoder_ffn_dim=4 * width,
        eos_token_id=None,
        forced_eos_token_id=None,
        init_std=0.1,
    )
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, decoder_start_token_id=2)
    torch.manual_seed(seed)
    SpeechEncoderDecoderModel(config).init_weights().save_pretrained(folder)


def measure(args: argparse.Namespace) -> list[Taken]:
    """Run both libraries in turn."""
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from raysp.models import SpeechEncoderDecoderModel

    with tempfile.TemporaryDirectory() as name:
        make(Path(name), vocab_size=args.vocab_size, layers=args.layers, width=args.width)
        models: dict[str, Any] = {
            "transformers": transformers.SpeechEncoderDecoderModel.from_pretrained(name).eval(),
            "raysp": SpeechEncoderDecoderModel.from_pretrained(name),
        }
    waves = torch.randn(args.batch, args.seconds * 16000)
    with torch.inference_mode():
        encoded = models["raysp"].encoder(waves)
    taken = {(library, way): Taken(library, way) for way in WAYS for library in models}
    for _ in range(args.repeats + 1):
        for way, options in WAYS.items():
            tokens = {}
            for library, model in models.items():
                call = decoding(model, waves, encoded, options, args)
                started = clock()
                tokens[library] = call()
                taken[library, way].seconds.append(clock() - started)
            same = torch.equal(tokens["raysp"], tokens["transformers"])
            if not same:
                print(f"{way}: tokens differ")
    for entry in taken.values():
        del entry.seconds[0]  # of warming up
    return list(taken.values())


def decoding(
    model: Any, waves: torch.Tensor, encoded: Any, options: dict[str, Any], args: argparse.Namespace
) -> Callable[[], torch.Tensor]:
    """Return the call to measure, of the whole model or of its decoder alone."""
    lengths = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens}
    if args.decoder_alone:
        from transformers.modeling_outputs import BaseModelOutput

        encoded = BaseModelOutput(last_hidden_state=encoded.last_hidden_state.clone())
        if not hasattr(model, "prepare_inputs_for_generation"):
            encoded = (encoded.last_hidden_state,)
        return lambda: model.generate(encoder_outputs=encoded, **lengths, **options)
    return lambda: model.generate(waves, **lengths, **options)


def main(argv: list[str]) -> None:
    """Print the time of each library, and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks generation", description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="rows per batch")
    parser.add_argument("--seconds", type=int, default=6, help="seconds of audio per row")
    parser.add_argument("--tokens", type=int, default=48, help="tokens per text")
    parser.add_argument("--vocab-size", type=int, default=50265, help="tokens in the vocabulary")
    parser.add_argument("--layers", type=int, default=6, help="number of layers")
    parser.add_argument("--width", type=int, default=512, help="width of the decoder")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--decoder-alone", action="store_true", help="leave out the encoder")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    found = measure(args)
    rows: list[dict[str, object]] = []
    for way in WAYS:
        theirs, ours = (
            next(t for t in found if (t.library, t.way) == (name, way)) for name in ("transformers", "raysp")
        )
        rows.append(
            {
                "way": way,
                "transformers ms": round(1000 * theirs.least),
                "raysp ms": round(1000 * ours.least),
                "ratio": f"{theirs.least / ours.least:.2f}",
            }
        )
    show(f"{args.batch} rows, {args.tokens} tokens, {args.layers} x {args.width}, {args.vocab_size} tokens", rows)
    if args.json:
        write_json(args.json, {"generation": [vars(t) for t in found]})
