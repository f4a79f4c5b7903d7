"""S0, the bare model at its best: batches are padded ahead into pinned memory, and copied while others are computed.

Three batches are in flight: one is copied to the device on a stream of its own, one is computed, and the best tokens of
one travel back into pinned memory. The host waits for the results of a batch once two later ones have been launched.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import models, speech
from benchmarks.gpu.devices import free_memory, peak_gigabytes, seconds_of
from benchmarks.gpu.part import Case, Figures, Setting
from raysp.models.base.arithmetic import arithmetic
from raysp.models.features.waves import as_float
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.blocks import cut_batches
from raysp.text.greedy_ctc import best_frames

SECONDS = 75.0
IN_FLIGHT = 3
HOURS = {"wav2vec2-base 94M": 4.0, "fastconformer 110M": 8.0, "sew-d 94M": 4.0}
"""Hours of audio of a repeat; of the others `SLOW_HOURS`."""
SLOW_HOURS, SMALL_HOURS = 2.0, 0.02
BUDGETS, SMALL_BUDGET = (300, 600, 1200), 30
REPEATS = 3


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each model."""
    for name in models.MODELS[:1] if setting.few else models.MODELS:
        yield Case(name, partial(measure, name, setting))


def measure(name: str, setting: Setting) -> Figures:
    """Return the speed with the best of some budgets of padded seconds a batch, interleaved."""
    loaded = models.make(name, setting.device, "bfloat16")
    hours = HOURS.get(name, SLOW_HOURS) if setting.is_gpu else SMALL_HOURS
    waves = speech.rows(speech.lengths_of(hours))
    budgets = BUDGETS if setting.is_gpu else (SMALL_BUDGET,)
    audio = sum(map(len, waves)) / speech.RATE
    run(loaded, waves[:8], budgets[0], setting.device)
    taken: dict[int, list[float]] = {budget: [] for budget in budgets}
    for _ in range(REPEATS if setting.is_gpu else 1):
        for budget in [*taken]:
            try:
                taken[budget].append(seconds_of(partial(run, loaded, waves, budget, setting.device), setting.device))
            except torch.OutOfMemoryError:
                if len(taken) == 1:
                    raise
                del taken[budget]  # the card is too small for it
                free_memory(setting.device)
    medians = {budget: float(np.median(times)) for budget, times in taken.items()}
    best = min(medians, key=lambda budget: medians[budget])
    return {
        "RTFx": audio / medians[best],
        "least RTFx": audio / max(taken[best]),
        "most RTFx": audio / min(taken[best]),
        "best budget s": best,
        "audio hours": audio / 3600,
        "peak GB": peak_gigabytes(setting.device),
        "RTFx of budgets": {str(budget): audio / seconds for budget, seconds in medians.items()},
    }


@torch.inference_mode()
def run(loaded: LoadedCheckpoint, waves: speech.Waves, budget: float, device: str) -> list[np.ndarray]:
    """Label rows, and return the best tokens of each batch."""
    batches = cut_batches([len(one) for one in waves], round(budget * speech.RATE))
    lanes = Lanes(device)
    found: list[np.ndarray] = []
    dtype = str(loaded.dtype).removeprefix("torch.")
    with ThreadPoolExecutor(1) as ahead, arithmetic(dtype=dtype, device=device):
        padded: deque[Future[Any]] = deque()
        flying: deque[tuple[Tensor, Any]] = deque()
        todo = iter(batches)
        for batch in (next(todo, None) for _ in range(IN_FLIGHT)):
            if batch is not None:
                padded.append(ahead.submit(lanes.padded, [waves[i] for i in batch]))
        while padded:
            sent = lanes.sent(*padded.popleft().result())
            if (batch := next(todo, None)) is not None:
                padded.append(ahead.submit(lanes.padded, [waves[i] for i in batch]))
            flying.append(lanes.computed(loaded, *sent))
            while len(flying) >= IN_FLIGHT or (flying and not padded):
                found.append(lanes.received(*flying.popleft()))
    return found


class Lanes:
    """Streams of a card for copies to it and for the rest; of another device, the same steps one after another."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.is_card = device == "cuda"
        self.copies = torch.cuda.Stream() if self.is_card else None

    def padded(self, waves: speech.Waves) -> tuple[Tensor, Tensor]:
        """Return rows padded to one length, in pinned memory, and their numbers of samples."""
        counts = torch.tensor([len(one) for one in waves])
        samples = torch.zeros(len(waves), int(counts.max()), dtype=torch.int16, pin_memory=self.is_card)
        array = samples.numpy()
        for row, wave in zip(array, waves, strict=True):
            row[: len(wave)] = wave
        return samples, counts.pin_memory() if self.is_card else counts

    def sent(self, samples: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Copy a batch to the device on the stream of copies; the pass waits for it on the device."""
        if self.copies is None:
            return samples.to(self.device), counts.to(self.device)
        with torch.cuda.stream(self.copies):
            both = samples.to("cuda", non_blocking=True), counts.to("cuda", non_blocking=True)
        torch.cuda.current_stream().wait_stream(self.copies)
        for one in both:
            one.record_stream(torch.cuda.current_stream())
        return both

    def computed(self, loaded: LoadedCheckpoint, samples: Tensor, counts: Tensor) -> tuple[Tensor, Any]:
        """Launch the pass over a batch, and the copy of its best tokens."""
        found = loaded.run(as_float(samples), counts, hidden_states=False)
        ids = best_frames(next(iter(found.heads.values()))["logits"]).ids.int()
        if not self.is_card:
            return ids.cpu(), None
        kept = torch.empty(ids.shape, dtype=ids.dtype, pin_memory=True)
        kept.copy_(ids, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return kept, event

    def received(self, ids: Tensor, event: Any) -> np.ndarray:
        """Return the best tokens of a batch once they have arrived."""
        if event is not None:
            event.synchronize()
        return ids.numpy()


def total_seconds(waves: Sequence[np.ndarray]) -> float:
    """Return the duration of rows."""
    return sum(map(len, waves)) / speech.RATE
