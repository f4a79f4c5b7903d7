"""S0, the bare model: waveforms in memory, sorted, no decoding of audio, no output. The upper bound of a run.

    python -m benchmarks.programs.bare CHECKPOINT SHARDS OUT --libraries raysp,transformers --budgets 10,30

OUT is a JSON file: times and texts of each library and each budget of padded seconds a batch, measured in turn.
"""

import argparse
import glob
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.programs import bare_batches
from benchmarks.timing import timed
from raysp.audio import decode
from raysp.crossing import fetch
from raysp.models.loading import load_checkpoint
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.ops.blocks import cut_batches
from raysp.text.greedy_ctc import best_frames, collapsed

Forward = Callable[[Sequence[list[np.ndarray]]], Iterable[list[int]]]
"""Takes the waveforms of batches and gives the collapsed token ids of each row, in order."""

WARM_UP_BATCHES = 2


def read_waves(url: str, sample_rate: int) -> dict[str, np.ndarray]:
    """Decode a corpus into memory, by id."""
    waves: dict[str, np.ndarray] = {}
    for name in sorted(glob.glob(url)):
        for row in pq.read_table(name, columns=["id", "audio"]).to_pylist():
            waves[row["id"]] = decode(row["audio"]["bytes"], sample_rate=sample_rate)
    return waves


def raysp_forward(checkpoint: str, device: str, dtype: str) -> tuple[Forward, int]:
    """Load the checkpoint with raysp.models. On a GPU batches go through it as those of an actor do."""
    loaded = load_checkpoint(Path(checkpoint), dtype=dtype, device=device)
    blank = loaded.text_tokenizer.pad_token_id or 0
    passes = bare_batches.passes_of(loaded.device)
    return lambda batches: bare_batches.run(loaded, batches, passes, blank), loaded.sample_rate


def transformers_forward(checkpoint: str, device: str, dtype: str) -> tuple[Forward, int]:
    """Load the checkpoint with transformers; one trained without an attention mask runs without one."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCTC.from_pretrained(checkpoint, dtype=dtype).to(device).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoint)
    blank = model.config.pad_token_id

    def forward(waves: list[np.ndarray]) -> list[list[int]]:
        features = extractor(
            [wave.astype(np.float32) / 32768 if wave.dtype == np.int16 else wave for wave in waves],
            sampling_rate=extractor.sampling_rate,
            padding=True,
            return_tensors="pt",
        ).to(device=device, dtype=model.dtype)
        logits = model(**features).logits
        num_samples = torch.tensor([len(wave) for wave in waves])
        num_frames = model._get_feat_extract_output_lengths(num_samples).to(device)
        frames = best_frames(logits)
        return list(collapsed(*fetch(frames.ids.int(), frames.log_probs, num_frames), blank=blank).ids())

    return lambda batches: (ids for batch in batches for ids in forward(batch)), extractor.sampling_rate


LIBRARIES = {"raysp": raysp_forward, "transformers": transformers_forward}


@torch.inference_mode()
def measure(
    forward: Forward, waves: Mapping[str, np.ndarray], sample_rate: int, budgets: Sequence[float]
) -> tuple[list[dict[str, float]], dict[str, list[int]]]:
    """Time each budget, after a few batches. Returns the times of each, and the ids of the last."""
    names, rows = list(waves), list(waves.values())
    num_samples = [len(wave) for wave in rows]
    cuts = {budget: cut_batches(num_samples, round(budget * sample_rate)) for budget in budgets}
    ids: dict[str, list[int]] = {}

    def label(batches: Sequence[Sequence[int]]) -> None:
        found = forward([[rows[index] for index in batch] for batch in batches])
        for index, tokens in zip((index for batch in batches for index in batch), found, strict=True):
            ids[names[index]] = tokens

    label(next(iter(cuts.values()))[-WARM_UP_BATCHES:])
    times = timed({f"{budget}": lambda batches=batches: label(batches) for budget, batches in cuts.items()}, 1)
    figures = [
        {
            "budget_seconds": budget,
            "seconds": taken.wall,
            "cpu_seconds": taken.cpu,
            "rtfx": sum(num_samples) / sample_rate / taken.wall,
            "padding_efficiency": sum(num_samples) / sum(num_samples[batch[0]] * len(batch) for batch in cuts[budget]),
        }
        for budget, [taken] in zip(cuts, times.values(), strict=True)
    ]
    return figures, ids


def main() -> None:
    """Label shards, and write times and texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint folder")
    parser.add_argument("shards", help="glob of shards")
    parser.add_argument("out", type=Path, help="JSON file for the results")
    parser.add_argument("--libraries", default="raysp", help="libraries to measure")
    parser.add_argument("--budgets", default="10", help="padded seconds per batch, several")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--device", default="cpu", help="device of the model")
    parser.add_argument("--dtype", default="float32", help="dtype of the model")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(Path(args.checkpoint))
    budgets = [float(budget) for budget in args.budgets.split(",")]
    waves: dict[str, np.ndarray] = {}
    found = []
    for library in args.libraries.split(","):
        forward, sample_rate = LIBRARIES[library](args.checkpoint, args.device, args.dtype)
        waves = waves or read_waves(args.shards, sample_rate)
        figures, ids = measure(forward, waves, sample_rate, budgets)
        texts = {name: tokenizer.decode_collapsed(tokens) for name, tokens in ids.items()}
        found += [{"library": library, **one, "texts": texts} for one in figures]
    args.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
