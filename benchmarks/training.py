"""How fast is a step of CTC training, compared with transformers, and what does the order of a large corpus take?

    python -m benchmarks training --steps 4 --repeats 3

Both train models of random weights (512 channels, 384 wide, 6 layers) on the same micro-batches, with AdamW and a
clipped norm. Steps are run in turn, and the median CPU time of a step is compared. Peak memory is that of a process of
its own for each. Then the order of an epoch of ten million rows is made, and their index is read from a sink.
"""

import argparse
import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import show
from benchmarks.timing import forget_peak, median, memory, timed
from raysp.corpus.shards import Piece, Shard
from raysp.sink.footer import Hashes
from raysp.specs.pipeline import Shards
from raysp.storage.store import LocalStore
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.planning.corpus_index import combine
from raysp.training.planning.ordering import Durations, Epoch, Sizes
from raysp.training.sink.source_index import ShardIndex, SourceIndex

SAMPLE_RATE = 16_000
SHARD_ROWS = 2_000
MIDDLE: Mapping[str, object] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 1536,
    "vocab_size": 32,
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": True,
    "layerdrop": 0.0,
}
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}


@dataclass(frozen=True)
class Case:
    """A model, and which part of it is trained."""

    name: str
    model: str
    aim: float
    """Least ratio of their CPU time to ours."""
    flags: Mapping[str, object] = field(default_factory=dict)
    is_frozen: bool = False
    """Whether the convolutions are not trained."""


CASES = (
    Case("UniSpeech, group norm", "UniSpeechForCTC", 1.0),
    Case("UniSpeech, group norm, frozen front end", "UniSpeechForCTC", 1.2, is_frozen=True),
    Case("Wav2Vec2, layer norm", "Wav2Vec2ForCTC", 1.1, LAYER_NORM),
    Case("Wav2Vec2, layer norm, frozen front end", "Wav2Vec2ForCTC", 1.2, LAYER_NORM, is_frozen=True),
    Case("SEW-D", "SEWDForCTC", 1.1, {"squeeze_factor": 2, "conv_dim": (64, *(128,) * 4, *(256,) * 4, *(512,) * 4)}),
    Case("Wav2Vec2-BERT", "Wav2Vec2BertForCTC", 1.1),
)
Step = Callable[[Sequence[MicroBatch]], float]


def micro_batches(number: int, *, seconds: float, seed: int = 0) -> list[MicroBatch]:
    """Return micro-batches of four rows of noise of similar durations, with targets of two labels a second."""
    random = np.random.default_rng(seed)
    found = []
    for place in range(number):
        lengths = (random.uniform(0.9, 1.1, 4) * seconds * SAMPLE_RATE).astype(int)
        waves = [random.normal(scale=0.1, size=length).astype(np.float32) for length in lengths]
        targets = [random.integers(4, 32, int(2 * seconds)).tolist() for _ in lengths]
        found.append(MicroBatch(place, range(4), waves, targets))
    return found


def our_step(case: Case, *, checkpointing: bool = False) -> Step:
    """Return a function that runs a step of raysp, and returns its loss."""
    import raysp.models
    from raysp.training.loop.optimizing import group_parameters, new_optimizer
    from raysp.training.loop.training_steps import Training
    from raysp.training.objectives.ctc_task import CTCTask
    from raysp.training.objectives.passes import Passes
    from raysp.training.objectives.task import Criterion

    torch.manual_seed(0)
    cls = getattr(raysp.models, case.model)
    model = cls(cls.config_class(**{**MIDDLE, **case.flags})).train()
    if case.is_frozen:
        model.freeze_feature_encoder()
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = new_optimizer(group_parameters(model, raysp.Schedule(steps=1, learning_rate=1e-5)))
    passes = Passes(model, _extractor(raysp.models, case), torch.float32)
    training = Training(Criterion(CTCTask(raysp.CTC("model"), None), passes), optimizer, seed=0)
    return lambda batches: training.step(0, 0, batches, learning_rate=1e-5).loss


def their_step(case: Case, *, checkpointing: bool = False) -> Step:
    """Return a function that runs the same step by transformers, and returns its loss."""
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    cls: Any = getattr(transformers, case.model)
    model = cls(cls.config_class(**{**MIDDLE, **case.flags})).train()
    if case.is_frozen:
        model.freeze_feature_encoder()
    if checkpointing:
        model.gradient_checkpointing_enable()
    extractor = _extractor(transformers, case)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.98), weight_decay=0.01)

    def step(batches: Sequence[MicroBatch]) -> float:
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for batch in batches:
            features = extractor([*batch.waves], sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt")
            width = max(map(len, batch.targets))
            labels = torch.tensor([[*target, *[-100] * (width - len(target))] for target in batch.targets])
            loss = model(**features, labels=labels.long()).loss / len(batches)
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return total

    return step


def _extractor(library: Any, case: Case) -> Any:
    if case.model == "Wav2Vec2BertForCTC":
        return library.SeamlessM4TFeatureExtractor()
    return library.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)


def compare(case: Case, *, steps: int, repeats: int, seconds: float) -> dict[str, object]:
    """Run steps of both in turn, and return the ratio of their CPU times."""
    batches = micro_batches(2, seconds=seconds)

    def steps_of(step: Step) -> Callable[[], None]:
        def run() -> None:
            for _ in range(steps):
                step(batches)

        return run

    taken = timed({"ours": steps_of(our_step(case)), "theirs": steps_of(their_step(case))}, repeats, warm_up=1)
    cpu = {name: median(times).cpu / steps for name, times in taken.items()}
    found: dict[str, object] = {"case": case.name, "CPU ratio": f"{cpu['theirs'] / cpu['ours']:.2f}"}
    found |= {"aim": f"{case.aim:.1f}", **{f"{name}, s a step": f"{value:.2f}" for name, value in cpu.items()}}
    for checkpointing in (False, True):
        ours, theirs = (_memory(which, case, seconds, checkpointing=checkpointing) for which in ("ours", "theirs"))
        found["memory, checkpointed" if checkpointing else "memory"] = f"{ours:.0f}/{theirs:.0f} MB"
    return found


def _memory(which: str, case: Case, seconds: float, *, checkpointing: bool) -> float:
    """Return the peak memory in MB that two steps add, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (which, case, seconds, checkpointing))


def _peak(which: str, case: Case, seconds: float, checkpointing: bool) -> float:
    torch.set_num_threads(1)
    batches = micro_batches(1, seconds=seconds)
    step = (our_step if which == "ours" else their_step)(case, checkpointing=checkpointing)
    gc.collect()
    forget_peak()
    before = memory("VmHWM")
    for _ in range(2):
        step(batches)
    return (memory("VmHWM") - before) / 2**20


def order(num_rows: int) -> dict[str, object]:
    """Make the order of an epoch of rows of 12 seconds on average, and its first window."""
    random = np.random.default_rng(0)
    seconds = random.gamma(4, 3, num_rows).clip(1, 30).astype(np.float32)
    index = Durations(seconds, np.append(np.arange(0, num_rows, 2000), num_rows))
    sizes = Sizes(micro_seconds=75, micro_batches=8, window_seconds=60_000)
    started = time.process_time()
    epoch = Epoch(index, sizes, seed=0, epoch=0)
    steps = epoch.num_steps
    whole = time.process_time() - started
    started = time.process_time()
    window = epoch.window(0)
    first = time.process_time() - started
    cost = [
        [float(seconds[window.micro_batch(s, m)].max(initial=0)) * len(window.micro_batch(s, m)) for m in range(8)]
        for s in range(window.num_steps)
    ]
    real = float(seconds[window.rows].sum())
    loads = np.asarray(cost)
    workers = {n: loads.reshape(len(loads), -1, n).sum(1) for n in (2, 4, 8)}
    slowest = {n: float((one.max(1) / one.mean(1)).mean()) for n, one in workers.items()}
    return {
        "rows": f"{num_rows:,}",
        "steps": f"{steps:,}",
        "order, CPU s": f"{whole:.1f}",
        "a window, CPU s": f"{first:.3f}",
        "index": f"{(seconds.nbytes + index.piece_rows.nbytes) / 1e6:.0f} MB",
        "padding efficiency": f"{real / loads.sum():.3f}",
        **{f"slowest of {n} / mean": f"{value:.3f}" for n, value in slowest.items()},
    }


def start(num_rows: int) -> dict[str, object]:
    """Load the index of a corpus of shards of 2,000 rows from a sink, and make its order and its first window."""
    random = np.random.default_rng(0)
    counts = dict.fromkeys("abcdefghijklmnopqrstuvwxyz|", 1000)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        sizes = [min(SHARD_ROWS, num_rows - place) for place in range(0, num_rows, SHARD_ROWS)]
        shards = [
            Shard(f"{place:05}.parquet", f"/in/{place:05}.parquet", 0, "v", size, f"{place:016x}", (Piece(0, size),))
            for place, size in enumerate(sizes)
        ]

        def make(absent: Sequence[Shard]) -> Generator[tuple[Shard, ShardIndex]]:
            for shard in absent:
                seconds = (random.integers(16_000, 480_000, shard.num_rows) / 16_000).tolist()
                left_out = ["filtered" if one else "" for one in random.random(shard.num_rows) < 0.02]
                rows = [(one, int(one * 12), reason) for one, reason in zip(seconds, left_out, strict=True)]
                yield shard, ShardIndex.of(shard, rows, Hashes.zeros(shard.num_rows), counts)

        source = SourceIndex(store, "source", Shards("/in/*.parquet"), "key")
        source.complete(shards, make)
        num_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
        started, began = time.process_time(), time.monotonic()
        corpus_index = combine(source.complete(shards, make))
        loaded = time.process_time() - started
        index = corpus_index.durations
        digest = index.digest
        epoch = Epoch(index, Sizes(micro_seconds=75, micro_batches=8, window_seconds=60_000), seed=0, epoch=0)
        next(epoch.windows_from(0))
        return {
            "rows": f"{num_rows:,}",
            "shards": f"{len(shards):,}",
            "index on disk": f"{num_bytes / 1e6:.0f} MB",
            "load, CPU s": f"{loaded:.1f}",
            "load, order and window, CPU s": f"{time.process_time() - started:.1f}",
            "wall s": f"{time.monotonic() - began:.1f}",
            "digest": digest,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--steps", type=int, default=3, help="steps of a repeat")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each, in turn")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of a row")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the corpus whose order is made")


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure and print."""
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if args.only.lower() in case.name.lower():
            rows.append(compare(case, steps=args.steps, repeats=args.repeats, seconds=args.seconds))
            show(case.name, rows[-1:])
    found = {"steps": rows, "order": [order(args.rows)], "start": [start(args.rows)]}
    show("Steps of training, transformers / raysp", found["steps"])
    show("Order of an epoch", found["order"])
    show("From the index of a sink to the first window", found["start"])
    return found
