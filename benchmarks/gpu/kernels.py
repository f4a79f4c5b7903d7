"""Kernels, gaps and waits of one batch of models of published size: on a card by its profiler, else by counting.

Without a card, launches and products are those of the model of published size on the `meta` device, which computes
nothing, and waits and copies are those of a small one on the stand-in.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import models, speech
from benchmarks.gpu.devices import seconds_of
from benchmarks.gpu.part import Case, Figures, Setting
from raysp.models.base.arithmetic import arithmetic
from raysp.models.features.waves import as_float, pad
from raysp.models.loading import LoadedCheckpoint
from raysp.text.greedy_ctc import best_frames

SECONDS = 95.0
LENGTHS = (2, 10, 30)
BATCH_SECONDS = 600
SMALL_SECONDS = 60
REPEATS = 5
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each model and length of rows."""
    for name in models.MODELS:
        for seconds in LENGTHS if name != "parakeet 600M" else (10,):
            if not setting.few or (seconds == 10 and name in ("sew-d 94M", "fastconformer 110M")):
                yield Case(f"{name}, {seconds} s", partial(measure, name, seconds, setting))


def measure(name: str, seconds: int, setting: Setting) -> Figures:
    """Measure a batch of rows of one length."""
    total = BATCH_SECONDS if setting.is_gpu else SMALL_SECONDS
    rows = total // seconds
    counted = counted_on_meta(name, seconds, BATCH_SECONDS // seconds)
    run = batch(name, speech.rows([float(seconds)] * rows), setting.device)
    with torch.inference_mode(), arithmetic(dtype="bfloat16", device=setting.device):
        for _ in range(2):  # constants are made, and memory is allocated
            run()
        taken = min(seconds_of(run, setting.device) for _ in range(REPEATS if setting.is_gpu else 1))
        seen = profiled(run) if setting.is_gpu else on_stand_in(run) if setting.device == "standin" else {}
    rate = {"TFLOP/s": counted["TFLOP"] / taken} if setting.is_gpu and "TFLOP" in counted else {}
    return {"ms": 1000 * taken, "RTFx": rows * seconds / taken, **counted, **rate, **seen}


def batch(name: str, waves: speech.Waves, device: str) -> Callable[[], object]:
    """Return what labels a batch: samples to the device, features, the model, and the best tokens back."""
    loaded = _loaded(name, device)
    samples, counts = pad(waves)

    def run() -> object:
        found = loaded.run(as_float(samples.to(device)), counts.to(device), hidden_states=False)
        frames = best_frames(next(iter(found.heads.values()))["logits"])
        return frames.ids.int().cpu(), frames.log_probs.cpu()

    return run


@lru_cache(maxsize=1)  # of the model of the case before, which may be of the same
def _loaded(name: str, device: str) -> LoadedCheckpoint:
    return models.make(name, device, "bfloat16")


@lru_cache(maxsize=1)
def _on_meta(name: str) -> tuple[Any, Any]:
    return models.on_meta(name, "bfloat16")


class Launches(TorchDispatchMode):
    """Counts operations that run a kernel: all but views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or "empty" in func.name() or func.name() == "aten::detach")
        return func(*args, **(kwargs or {}))


def counted_on_meta(name: str, seconds: int, rows: int) -> dict[str, Any]:
    """Return the counts, or why the model does not run on `meta`, where constants made of values are refused."""
    try:
        return count(name, seconds, rows)
    except RuntimeError as error:
        return {"not counted on meta": [str(error)]}


def count(name: str, seconds: int, rows: int) -> dict[str, float]:
    """Return launches and products of the encoder and head of published size over a batch of rows of one length."""
    model, extractor = _on_meta(name)
    length = extractor.extract(torch.zeros(1, 16_000 * seconds), torch.tensor([16_000 * seconds]))
    length.pop("attention_mask", None)  # no row is padded
    features = {key: torch.empty(rows, *one.shape[1:], device="meta", dtype=one.dtype) for key, one in length.items()}
    values = {key: one.bfloat16() if one.is_floating_point() else one for key, one in features.items()}
    launches = Launches()
    with torch.inference_mode(), FlopCounterMode(display=False) as products, launches:
        model(**values)
    return {"launches of the model": launches.count, "TFLOP": products.get_total_flops() / 1e12}


def on_stand_in(run: Callable[[], object]) -> Figures:
    """Return what the stand-in counts of a batch."""
    from tests.device.stand_in import counted

    with counted() as counts:
        run()
    places = counts.waits + counts.copies_in
    return {
        "launches": counts.launches,
        "waits": sum(counts.waits.values()),
        "copies in": sum(counts.copies_in.values()),
        "copies out": sum(counts.copies_out.values()),
        "places": [f"{number} {place}" for place, number in places.most_common(10)],
    }


class Work(NamedTuple):
    """One event of the device: start and end in microseconds."""

    name: str
    start: float
    end: float


def profiled(run: Callable[[], object]) -> Figures:
    """Return kernels, gaps and waits of a batch, by the profiler of torch."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    events = list(profiler.events() or ())
    on_card = [
        Work(one.name, one.time_range.start, one.time_range.end)
        for one in events
        if one.device_type == DeviceType.CUDA and not getattr(one, "is_user_annotation", False)
    ]
    waits = sum(one.name in WAITS for one in events if one.device_type == DeviceType.CPU)
    return {**timeline(on_card), "waits": max(0, waits - 1)}  # the last wait is that of this function


def timeline(work: Iterable[Work]) -> dict[str, object]:
    """Return the number of kernels and copies, the time of both, and that of the gaps between them."""
    ordered = sorted(work, key=lambda one: one.start)
    if not ordered:
        return {"kernels": 0}
    busy, end = 0.0, ordered[0].start
    largest = 0.0
    for one in ordered:
        largest = max(largest, one.start - end)
        busy += max(0.0, one.end - max(one.start, end))
        end = max(end, one.end)
    span = end - ordered[0].start
    copies = sum(one.name.startswith(("Memcpy", "Memset")) for one in ordered)
    spent: dict[str, float] = {}
    for one in ordered:
        spent[one.name] = spent.get(one.name, 0.0) + one.end - one.start
    top = sorted(spent.items(), key=lambda item: -item[1])[:12]
    return {
        "kernels": len(ordered) - copies,
        "copies": copies,
        "busy ms": busy / 1000,
        "gaps ms": (span - busy) / 1000,
        "largest gap ms": largest / 1000,
        "longest": [f"{taken / 1000:.2f} ms {name[:100]}" for name, taken in top],
    }
