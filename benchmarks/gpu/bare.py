"""S0, the bare model at its best: its batches go through the device as those of an actor do, without rows and texts.

They are padded into a ring of pinned memory and copied while others are computed, and their best tokens travel back and
are merged while the next ones are computed (`raysp.ops.passes.device_passes`).
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.gpu import models, speech
from benchmarks.gpu.devices import free_memory, peak_gigabytes, seconds_of
from benchmarks.gpu.part import Case, Figures, Setting
from benchmarks.inputs import bare_batches
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.blocks import cut_batches
from raysp.ops.passes.batch_stages import Passes

SECONDS = 75.0
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
    passes = bare_batches.passes_of(loaded.device)
    run(loaded, waves[:8], budgets[0], passes)
    taken: dict[int, list[float]] = {budget: [] for budget in budgets}
    for _ in range(REPEATS if setting.is_gpu else 1):
        for budget in [*taken]:
            try:
                taken[budget].append(seconds_of(partial(run, loaded, waves, budget, passes), setting.device))
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


def run(loaded: LoadedCheckpoint, waves: speech.Waves, budget: float, passes: Passes) -> list[list[int]]:
    """Return the tokens of rows, in batches of a budget of padded seconds, the longest rows first."""
    batches = cut_batches([len(one) for one in waves], round(budget * speech.RATE))
    return bare_batches.run(loaded, [[waves[i] for i in batch] for batch in batches], passes)


def total_seconds(waves: Sequence[np.ndarray]) -> float:
    """Return the duration of rows."""
    return sum(map(len, waves)) / speech.RATE
