"""Steps of CTC training compared with a loop over transformers, and the order of a large corpus.

    python -m benchmarks training --steps 4 --repeats 3

Both train models of random weights (512 channels, 384 wide, 6 layers) on the same micro-batches, with AdamW and a
clipped norm. Steps are run in turn, and the median CPU time of a step is compared. Peak memory is that of a process of
its own for each. Then the order of an epoch of ten million rows is made, their index is read from a sink, and windows
of audio are read.

Question of docs/evidence/performance.md, "Training": how fast is a step of training, compared with transformers?
"""

import argparse
import ctypes
import gc
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.tables import show, write_json
from raysp.corpus.shards import Piece, Shard
from raysp.sink.footer import Hashes
from raysp.specs.pipeline import Shards
from raysp.storage.store import LocalStore
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.planning.ordering import Epoch, Index, Sizes
from raysp.training.sink.corpus_index import combine
from raysp.training.sink.source_index import ShardIndex, SourceIndex

SAMPLE_RATE = 16_000
WINDOWS = 4
"""Windows that are read for their memory."""
PIECES_A_WINDOW = 5
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
    ours, theirs = our_step(case), their_step(case)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    ours(batches)
    theirs(batches)
    for repeat in range(repeats):
        pair = [("ours", ours), ("theirs", theirs)]
        for name, step in pair if repeat % 2 == 0 else pair[::-1]:
            started = time.process_time()
            for _ in range(steps):
                step(batches)
            times[name].append((time.process_time() - started) / steps)
    ratio = statistics.median(times["theirs"]) / statistics.median(times["ours"])
    found: dict[str, object] = {"case": case.name, "CPU ratio": f"{ratio:.2f}", "aim": f"{case.aim:.1f}"}
    found |= {f"{name}, s a step": f"{statistics.median(values):.2f}" for name, values in times.items()}
    for checkpointing in (False, True):
        mine, other = (_memory(which, case, seconds, checkpointing=checkpointing) for which in ("ours", "theirs"))
        found["memory, checkpointed" if checkpointing else "memory"] = f"{mine:.0f}/{other:.0f} MB"
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
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _peak_kilobytes()
    for _ in range(2):
        step(batches)
    return (_peak_kilobytes() - before) / 1024


def _peak_kilobytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def windows(seconds: float) -> dict[str, object]:
    """Read windows of joined digits at 16 kHz, each while the one before it is held, as training does.

    The memory is what the reading process adds to its own, at most; its decoding process holds one recording at a time.
    A window counts as the samples of the largest one, of two bytes each.
    """
    with tempfile.TemporaryDirectory() as folder:
        shards = round(WINDOWS * PIECES_A_WINDOW)
        corpus.build(Path(folder), "train-like", minutes=WINDOWS * seconds / 60, shards=shards, sample_rate=SAMPLE_RATE)
        found: dict[str, object] = {"window": f"{seconds:,.0f} s"}
        context = multiprocessing.get_context("spawn")
        for name, is_held in (("one window", False), ("with the one before", True)):
            with context.Pool(1) as pool:
                peak, window = pool.apply(_window_peak, (folder, seconds, is_held))
            found["samples"] = f"{window:.0f} MB"
            found[name] = f"{peak:.0f} MB, {peak / window:.2f} windows"
    return found


def _window_peak(folder: str, seconds: float, is_held: bool) -> tuple[float, float]:
    """Return the peak memory that reading windows adds, and the largest window, of two bytes a sample, in MB."""
    import raysp
    from raysp.audio.isolation import Decoder
    from raysp.training.data.row_windows import Failures, Reading
    from raysp.training.planning.training_plan import plan_training
    from raysp.training.preparing import prepare

    recipe = raysp.Finetune(
        raysp.Shards(f"{folder}/*.parquet", text="text"),
        steps=[raysp.Decode()],
        objective=raysp.CTC(str(BUNDLED), text=raysp.Text("upper", keep="letters")),
        schedule=raysp.Schedule(epochs=1),
        batching=raysp.Batching(seconds=40, micro_batches=4, window_seconds=seconds),
        sink=raysp.Checkpoint(f"{folder}/sink"),
    )
    with Decoder() as decoder:
        prepared = prepare(plan_training(recipe), None, decoder=decoder)
        reading = Reading(prepared.reader(decoder), Failures(1.0))
        reading.reader(0, range(int(prepared.corpus.piece_rows[1])))  # so that all code is loaded
        gc.collect()
        pa.default_memory_pool().release_unused()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, held, samples = _peak_kilobytes(), None, []
        for window in prepared.order.first_epoch.windows_from(0):
            rows = reading(window)
            samples.append(sum(len(row.wave) for row in rows.values()))
            held = rows if is_held else None
            del rows
        del held
        return (_peak_kilobytes() - before) / 1024, 2 * max(samples) / 2**20


def order(num_rows: int) -> dict[str, object]:
    """Make the order of an epoch of rows of 12 seconds on average, and its first window."""
    random = np.random.default_rng(0)
    seconds = random.gamma(4, 3, num_rows).clip(1, 30).astype(np.float32)
    index = Index(seconds, np.append(np.arange(0, num_rows, 2000), num_rows))
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
        index = Index(corpus_index.seconds, corpus_index.piece_rows)
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


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=3, help="steps of a repeat")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each, in turn")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of a row")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the corpus whose order is made")
    parser.add_argument("--windows", type=float, nargs="*", default=[1000, 4000], help="seconds of windows to read")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if args.only.lower() in case.name.lower():
            rows.append(compare(case, steps=args.steps, repeats=args.repeats, seconds=args.seconds))
            show(f"{case.name}", rows[-1:])
    show("Steps of training, transformers / raysp", rows)
    orders = [order(args.rows)]
    show("Order of an epoch", orders)
    starts = [start(args.rows)]
    show("From the index of a sink to the first window", starts)
    memory = [windows(seconds) for seconds in args.windows]
    show("Memory of windows", memory)
    if args.json:
        write_json(args.json, {"steps": rows, "order": orders, "start": starts, "windows": memory})
