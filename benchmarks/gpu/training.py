"""A step of training of three models: loss, gradients and update of a micro-batch, in bfloat16 on a card."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import torch

from benchmarks.gpu import models, speech
from benchmarks.gpu.devices import peak_gigabytes, seconds_of
from benchmarks.gpu.kernels import on_stand_in
from benchmarks.gpu.part import Case, Figures, Setting
from raysp.models.features.waves import as_float, pad

SECONDS = 40.0
MODELS = ("wav2vec2-base 94M", "fastconformer 110M", "w2v-bert 600M")
ROWS, ROW_SECONDS, TOKENS = 12, 10.0, 40
SMALL_ROWS, SMALL_ROW_SECONDS, SMALL_TOKENS = 2, 2.0, 5
STEPS = 5


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each model."""
    for name in MODELS[:1] if setting.few else MODELS:
        yield Case(name, partial(measure, name, setting))


def measure(name: str, setting: Setting) -> Figures:
    """Return the time of a step of CTC training, and what the host waits for in it."""
    loaded = models.make(name, setting.device, "float32")
    model = loaded.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    rows, seconds, tokens = (
        (ROWS, ROW_SECONDS, TOKENS) if setting.is_gpu else (SMALL_ROWS, SMALL_ROW_SECONDS, SMALL_TOKENS)
    )
    samples, counts = pad(speech.rows([seconds] * rows))
    labels = torch.randint(5, 25, (rows, tokens), generator=torch.Generator().manual_seed(0)).to(setting.device)
    in_half = torch.autocast("cuda", torch.bfloat16) if setting.is_gpu else nullcontext()
    losses: list[float] = []

    def step() -> None:
        features = loaded.feature_extractor.extract(as_float(samples.to(setting.device)), counts.to(setting.device))
        optimizer.zero_grad()
        with in_half:
            loss = model(**features, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))

    step()
    taken = min(seconds_of(step, setting.device) for _ in range(STEPS if setting.is_gpu else 1))
    return {
        "ms a step": 1000 * taken,
        "RTFx": rows * seconds / taken,
        "loss is finite": all(loss == loss and abs(loss) != float("inf") for loss in losses),
        "peak GB": peak_gigabytes(setting.device),
        **(on_stand_in(step) if setting.device == "standin" else {}),
    }
