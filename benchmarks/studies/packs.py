"""Half precision on CPUs: packs of rows against one row a pass, in CPU time of one thread.

    python -m benchmarks packs --only parakeet --dtype bfloat16
    python -m benchmarks packs --mixed --total 960
    python -m benchmarks packs --batches --dtype float32 --layers 2 --total 240

Models have random weights and published widths. Rows of one length fill packs as in labelling, by `Grouping.cut`, and
go through `LoadedCheckpoint.run_pack` and `LoadedCheckpoint.run` in turn. The ratio is that of the shortest times.
`--mixed` compares packs of blocks of like lengths with those of `PackLimits`, of rows of 1 to 30 s. `--batches`
compares batches of several sizes, of the same rows.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import raysp.models
from benchmarks.studies.conformer import MID, Run, time_pair
from benchmarks.tables import show, write_json
from raysp.models.features.waves import pad
from raysp.models.loading import LoadedCheckpoint, load_checkpoint
from raysp.ops.blocks import Grouping, PackLimits, cut_blocks
from raysp.ops.budget import CPU_PACK_SECONDS
from raysp.ops.precision import Batching

SAMPLE_RATE = 16000
SECONDS = (1.0, 3.0, 10.0, 30.0)
LAYERS = 4
BATCHES = (15.0, 30.0, 60.0, 120.0)
"""Padded seconds of a batch; the others are compared with the first."""


@dataclass(frozen=True)
class Case:
    """An encoder and the feature extractor of its checkpoints, by name."""

    name: str
    encoder: str
    extractor: str
    flags: Mapping[str, object]


WIDE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
STABLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
FAST = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
CASES = (
    Case("unispeech", "UniSpeechModel", "Wav2Vec2FeatureExtractor", {}),
    Case("unispeech layer norm", "UniSpeechModel", "Wav2Vec2FeatureExtractor", {**WIDE, **STABLE}),
    Case("parakeet 110M", "ParakeetEncoder", "ParakeetFeatureExtractor", FAST),
    Case("parakeet 600M", "ParakeetEncoder", "ParakeetFeatureExtractor", {}),
    Case("wav2vec2-bert", "Wav2Vec2BertModel", "SeamlessM4TFeatureExtractor", {}),
    Case("sew-d mid", "SEWDModel", "Wav2Vec2FeatureExtractor", MID),
)


def loaded(case: Case, dtype: str, layers: int) -> LoadedCheckpoint:
    """Return a checkpoint of a case with random weights."""
    cls = getattr(raysp.models, case.encoder)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        cls(cls.config_class(**{**case.flags, "num_hidden_layers": layers})).init_weights().save_pretrained(folder)
        getattr(raysp.models, case.extractor)().save_pretrained(folder)
        return load_checkpoint(Path(folder), dtype=dtype)


def alone_and_packed(one: LoadedCheckpoint, seconds: float, total: float) -> tuple[Run, Run]:
    """Return passes over `total` seconds of noise, in rows of one length: one row a pass, and in packs."""
    rows = max(1, round(total / seconds))
    noise = 0.1 * np.random.default_rng(0).standard_normal((rows, round(seconds * SAMPLE_RATE)))
    waves = list(noise.astype(np.float32))
    grouping = Grouping(Batching.PACKED, one.summary.hidden_stride)
    packs = grouping.cut([*map(len, waves)], round(CPU_PACK_SECONDS * SAMPLE_RATE))
    return (
        lambda: [one.run(*pad([wave]), hidden_states=False) for wave in waves],
        lambda: [one.run_pack(*_samples([waves[row] for row in pack]), hidden_states=False) for pack in packs],
    )


def mixed_rows(total: float) -> list[np.ndarray]:
    """Return noise of `total` seconds, in rows of 1 to 30 s."""
    draw = np.random.default_rng(0)
    seconds = 1 + 29 * draw.beta(1.4, 2.3, round(total / 12))
    return [draw.normal(0, 0.1, round(SAMPLE_RATE * length)).astype(np.float32) for length in seconds]


def in_batches(one: LoadedCheckpoint, waves: list[np.ndarray], seconds: float) -> Run:
    """Return passes over rows in batches of so many padded seconds."""
    cut = Grouping(Batching.FREE, one.summary.hidden_stride).cut([*map(len, waves)], round(seconds * SAMPLE_RATE))
    batches = [pad([waves[row] for row in batch]) for batch in cut]
    return lambda: [one.run(*batch, hidden_states=False) for batch in batches]


def _samples(waves: Sequence[np.ndarray]) -> tuple[list[torch.Tensor], torch.Tensor]:
    return [*map(torch.from_numpy, waves)], torch.tensor([*map(len, waves)])


def like_and_mixed(one: LoadedCheckpoint, total: float) -> tuple[Run, Run]:
    """Return passes over the packs of blocks of rows of like lengths, and over those of blocks that packs fill."""
    waves, stride = mixed_rows(total), one.summary.hidden_stride
    most = round(CPU_PACK_SECONDS * SAMPLE_RATE)
    grouping = Grouping(Batching.PACKED, stride)

    def packs(limits: PackLimits | None) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
        sizes = {"block_seconds": 4 * CPU_PACK_SECONDS, "bytes_per_second": 4.0 * SAMPLE_RATE}
        blocks = cut_blocks([len(wave) / SAMPLE_RATE for wave in waves], **sizes, packs=limits)
        return [
            _samples([waves[block[row]] for row in pack])
            for block in blocks
            for pack in grouping.cut([len(waves[row]) for row in block], most)
        ]

    like, mixed = packs(None), packs(PackLimits(SAMPLE_RATE, stride, most))
    return (
        lambda: [one.run_pack(*pack, hidden_states=False) for pack in like],
        lambda: [one.run_pack(*pack, hidden_states=False) for pack in mixed],
    )


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks packs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases with this in their names")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"], help="of weights")
    parser.add_argument("--layers", type=int, default=LAYERS, help="number of layers")
    parser.add_argument("--total", type=float, default=60.0, help="seconds of audio of a measurement")
    parser.add_argument("--mixed", action="store_true", help="rows of 1 to 30 s in two kinds of blocks")
    parser.add_argument("--batches", action="store_true", help="rows of 1 to 30 s in batches of several sizes")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    figures = []
    for case in (one for one in CASES if args.only in one.name):
        one = loaded(case, args.dtype, args.layers)
        if args.mixed:
            with torch.inference_mode():
                like, mixed = time_pair(*like_and_mixed(one, args.total), args.repeats)
            times = {"like lengths ms": f"{1000 * like:.0f}", "mixed ms": f"{1000 * mixed:.0f}"}
            figures.append({"model": case.name, **times, "mixed over like": f"{mixed / like:.2f}"})
            continue
        if args.batches:
            waves = mixed_rows(args.total)
            usual, *others = (in_batches(one, waves, seconds) for seconds in BATCHES)
            with torch.inference_mode():
                pairs = [time_pair(usual, other, args.repeats) for other in others]
            ratios = {
                f"{size:g} s over {BATCHES[0]:g} s": f"{b / a:.2f}"
                for size, (a, b) in zip(BATCHES[1:], pairs, strict=True)
            }
            figures.append({"model": case.name, **ratios})
            continue
        for seconds in SECONDS:
            with torch.inference_mode():
                alone, packed = time_pair(*alone_and_packed(one, seconds, args.total), args.repeats)
            figures.append(
                {
                    "model": case.name,
                    "seconds": seconds,
                    "alone ms": f"{1000 * alone:.0f}",
                    "packs ms": f"{1000 * packed:.0f}",
                    "packs over alone": f"{packed / alone:.2f}",
                }
            )
    show(f"packs, {args.dtype}", figures)
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
