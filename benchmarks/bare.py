"""S0, the bare model: waveforms in memory, sorted, no decoding, no output. The upper bound for a run.

    python -m benchmarks bare CHECKPOINT 'corpus/*.parquet' --budgets 10,30,60 --libraries raysp,transformers
    python -m benchmarks bare CHECKPOINT 'corpus/*.parquet' --budgets 30 --cuts budget,like,least

Prints the time of each library for each budget of padded seconds per batch. Run it in a separate process.

Question of docs/evidence/performance.md, "Batch budget and cutting":
how fast is the bare model, and with which budget and cut of batches?
"""

import argparse
import glob
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.inputs import bare_batches
from benchmarks.tables import show, write_json
from raysp.audio import decode
from raysp.models.loading import load_checkpoint
from raysp.ops.blocks import cut_batches
from raysp.text.greedy_ctc import greedy

Batches = list[list[int]]
Cut = Callable[[Sequence[int], int], Batches]
Forward = Callable[[Sequence[list[np.ndarray]]], Iterable[list[int]]]
"""Takes the waveforms of batches and gives the collapsed token ids of each row, in order."""

WARM_UP_BATCHES = 2
LIKE_SHARE = 0.8
BATCH_OVERHEAD_SECONDS = 1.0


@dataclass
class Measured:
    """Times of one library with one budget."""

    library: str
    budget_seconds: float
    cut: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    """Of this process; steadier than wall time where others share the cores."""
    audio_seconds: float = 0
    padding_efficiency: float = 0
    batches: int = 0

    @property
    def median(self) -> float:
        """Median of the repeats."""
        return statistics.median(self.seconds)

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second."""
        return self.audio_seconds / self.median


def like(num_samples: Sequence[int], max_samples: int) -> Batches:
    """Split by the budget, and where a window is much shorter than the longest of the batch."""
    batches: Batches = []
    longest = 0
    for index in sorted(range(len(num_samples)), key=lambda i: (-num_samples[i], i)):
        full = not batches or longest * (len(batches[-1]) + 1) > max_samples
        if full or num_samples[index] < LIKE_SHARE * longest:
            batches.append([])
            longest = num_samples[index]
        batches[-1].append(index)
    return batches


def least(num_samples: Sequence[int], max_samples: int, overhead_samples: float | None = None) -> Batches:
    """Split so that padded samples plus a fixed cost per batch are minimal, each batch within the budget."""
    overhead = 16000 * BATCH_OVERHEAD_SECONDS if overhead_samples is None else overhead_samples
    order = sorted(range(len(num_samples)), key=lambda i: (-num_samples[i], i))
    best, begins = [0.0], [0]
    for end in range(1, len(order) + 1):
        cost, begin = float("inf"), end - 1
        for first in range(end - 1, -1, -1):
            padded = num_samples[order[first]] * (end - first)
            if padded > max_samples and first < end - 1:
                break
            if best[first] + overhead + padded < cost:
                cost, begin = best[first] + overhead + padded, first
        best.append(cost)
        begins.append(begin)
    batches: Batches = []
    end = len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]


CUTS: Mapping[str, Cut] = {"budget": cut_batches, "like": like, "least": least}


def read_waves(url: str, sample_rate: int) -> dict[str, np.ndarray]:
    """Decode a corpus into memory, by id."""
    waves: dict[str, np.ndarray] = {}
    for name in sorted(glob.glob(url)):
        for row in pq.read_table(name, columns=["id", "audio"]).to_pylist():
            waves[row["id"]] = decode(row["audio"]["bytes"], sample_rate=sample_rate)
    if not waves:
        raise SystemExit(f"{url!r}: no such shards")
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
        return list(greedy(logits, num_frames, blank=blank).ids())

    return lambda batches: (ids for batch in batches for ids in forward(batch)), extractor.sampling_rate


LIBRARIES = {"raysp": raysp_forward, "transformers": transformers_forward}


@torch.inference_mode()
def measure(
    library: str,
    forward: Forward,
    waves: Mapping[str, np.ndarray],
    sample_rate: int,
    *,
    budgets: Sequence[float],
    cuts: Sequence[str] = ("budget",),
    repeats: int = 1,
) -> tuple[list[Measured], dict[str, list[int]]]:
    """Time each budget, interleaved over the repeats. Returns the times, and the ids of the last pass."""
    names, given = list(waves), list(waves.values())
    num_samples = [len(wave) for wave in given]
    plans = {(b, c): CUTS[c](num_samples, round(b * sample_rate)) for b in budgets for c in cuts}
    found = {
        (budget, cut): Measured(
            library,
            budget,
            cut,
            audio_seconds=sum(num_samples) / sample_rate,
            padding_efficiency=sum(num_samples) / sum(num_samples[b[0]] * len(b) for b in batches),
            batches=len(batches),
        )
        for (budget, cut), batches in plans.items()
    }
    ids: dict[str, list[int]] = {}
    for _ in forward([[given[i] for i in batch] for batch in next(iter(plans.values()))[-WARM_UP_BATCHES:]]):
        pass
    for _ in range(repeats):
        for key, batches in plans.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            found_ids = forward([[given[i] for i in batch] for batch in batches])
            for index, tokens in zip((i for batch in batches for i in batch), found_ids, strict=True):
                ids[names[index]] = tokens
            found[key].seconds.append(time.perf_counter() - started)
            found[key].cpu_seconds.append(time.process_time() - cpu_started)
    return list(found.values()), ids


def texts_of(checkpoint: str, ids: Mapping[str, list[int]]) -> dict[str, str]:
    """Convert collapsed ids to texts. Not timed."""
    from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer

    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(Path(checkpoint))
    return {name: tokenizer.decode_collapsed(tokens) for name, tokens in ids.items()}


def rows(measured: Sequence[Measured]) -> list[dict[str, object]]:
    """Return table rows, with the fastest marked."""
    best = min(measured, key=lambda one: one.median)
    return [
        {
            "library": one.library,
            "budget s": f"{one.budget_seconds:g}",
            "cut": one.cut,
            "batches": one.batches,
            "padding": f"{one.padding_efficiency:.3f}",
            "seconds": f"{one.median:.2f}",
            "min": f"{min(one.seconds):.2f}",
            "max": f"{max(one.seconds):.2f}",
            "CPU s": f"{min(one.cpu_seconds):.2f}",
            "RTFx": f"{one.rtfx:.1f}",
            "": "fastest" if one is best else "",
        }
        for one in measured
    ]


def available(libraries: Sequence[str]) -> list[str]:
    """Return the libraries that are installed."""
    return [name for name in libraries if name == "raysp" or importlib.util.find_spec(name)]


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks bare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="checkpoint folder")
    parser.add_argument("corpus", help="glob of shards")
    parser.add_argument("--libraries", default="raysp,transformers", help="libraries to measure")
    parser.add_argument("--budgets", default="5,10,20,30,60,120", help="padded seconds per batch, several")
    parser.add_argument("--cuts", default="budget", help=f"ways to split batches: {', '.join(CUTS)}")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=1, help="number of repeats")
    parser.add_argument("--device", default="cpu", help="device of the model")
    parser.add_argument("--dtype", default="float32", help="dtype of the model")
    parser.add_argument("--texts", action="store_true", help="also write the texts to the JSON file")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    measured: list[Measured] = []
    texts: dict[str, dict[str, str]] = {}
    waves: dict[str, np.ndarray] = {}
    for library in available(args.libraries.split(",")):
        forward, sample_rate = LIBRARIES[library](args.checkpoint, args.device, args.dtype)
        waves = waves or read_waves(args.corpus, sample_rate)
        figures, ids = measure(
            library,
            forward,
            waves,
            sample_rate,
            budgets=[float(one) for one in args.budgets.split(",")],
            cuts=args.cuts.split(","),
            repeats=args.repeats,
        )
        measured += figures
        texts[library] = texts_of(args.checkpoint, ids) if args.texts else {}
    show(f"S0, {args.threads} thread(s): {args.checkpoint} over {args.corpus}", rows(measured))
    if args.json:
        figures_json = [{**asdict(one), "median": one.median, "rtfx": one.rtfx} for one in measured]
        write_json(args.json, {"measured": figures_json, "texts": texts})


def load(path: Path) -> dict[str, object]:
    """Read a file written by `--json`."""
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()
