"""Passes as graphs: whether they keep the bits of their kernels one by one on this card, and what they save.

Each model runs passes over speech of one shape. The first is plain, the second is recorded, and each later one runs as
a graph and kernel by kernel. The certificate holds the counts; runs use graphs of the classes and dtypes in it.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import models, speech
from benchmarks.gpu.decoders import encoder_decoder
from benchmarks.gpu.devices import seconds_of
from benchmarks.gpu.part import Figures, Setting
from raysp.crossing import fetch
from raysp.device_graphs import RECURRENCES, has_graphs
from raysp.device_streams import for_passes
from raysp.devices import synchronize
from raysp.models.base.arithmetic import arithmetic
from raysp.models.decoder.graphed_steps import GraphedSteps
from raysp.models.features.waves import as_float, pad
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.passes.graphed_passes import GraphedPasses, have_equal_bits

MODELS = ("wav2vec2-base 94M", "unispeech-large 315M", "w2v-bert 600M", "fastconformer 110M", "sew-d 94M")
"""One model of each class with published weights."""
ROWS, SMALL_ROWS = 20, 2
SECONDS_A_ROW, SMALL_SECONDS = 30.0, 1.5
TEXTS = {"max_new_tokens": 25, "min_length": 26, "return_dict_in_generate": True, "output_scores": True}
PASSES = 3
"""Passes that are compared."""


def compare(dtype: str, setting: Setting, found: list[dict[str, object]]) -> Figures:
    """Compare passes as graphs with plain ones for each model, and add the counts to `found`."""
    if not has_graphs(setting.device):
        return {"left out": f"torch records no graphs for {setting.device}"}
    names = MODELS[:2] if setting.few else MODELS
    rows = [
        {"model": name, **compare_model(models.make(name, setting.device, dtype), dtype, setting)} for name in names
    ]
    rows.append({"model": "encoder-decoder", **compare_texts(dtype, setting)})
    counts = ("architecture", "dtype", "rows", "frames", "passes", "unequal")
    found += [{key: row[key] for key in counts} for row in rows]
    equal = sum(row["unequal"] == 0 for row in rows)
    return {"models": len(rows), "keep bits": equal, "share": equal / len(rows), "of": rows}


def size_of(setting: Setting) -> tuple[int, float]:
    """Return the rows of a batch, and the seconds of a row."""
    return (ROWS, SECONDS_A_ROW) if setting.is_gpu else (SMALL_ROWS, SMALL_SECONDS)


@torch.inference_mode()
def compare_model(loaded: LoadedCheckpoint, dtype: str, setting: Setting) -> dict[str, Any]:
    """Return the counts of a model, and the seconds of a pass kernel by kernel and as a graph."""
    rows, seconds = size_of(setting)
    graphed = GraphedPasses(loaded.run, loaded.device)
    batches = [batch(rows, seconds, seed, setting.device) for seed in range(RECURRENCES + PASSES)]
    synchronize(loaded.device)  # samples were copied on another stream
    with arithmetic(dtype=dtype, device=setting.device), for_passes(loaded.device):
        for given in batches[:RECURRENCES]:
            graphed(*given, hidden_states=False)
        pairs = [[run(*given, hidden_states=False) for run in (graphed, loaded.run)] for given in batches[RECURRENCES:]]
        unequal = sum(not have_equal_bits(*pair) for pair in pairs)
        last = [partial(run, *batches[-1], hidden_states=False) for run in (loaded.run, graphed)]
        times = [seconds_of(run, setting.device) for run in last]
    return {
        "architecture": loaded.summary.architecture,
        "dtype": dtype,
        "rows": rows,
        "frames": loaded.num_frames([round(seconds * speech.RATE)])[0][0],
        "passes": PASSES,
        "unequal": unequal if graphed.graphs else PASSES,
        "why not": graphed.why_not,
        "plain s": times[0],
        "graph s": times[1],
    }


@torch.inference_mode()
def compare_texts(dtype: str, setting: Setting) -> dict[str, Any]:
    """Return what `compare_model` does of an encoder-decoder, with steps of its decoder as graphs."""
    loaded = models.loaded(*encoder_decoder(not setting.is_gpu), None, setting.device, dtype)
    found = compare_model(loaded, dtype, setting)
    steps, unequal, times = GraphedSteps(loaded.device), 0, [0.0, 0.0]
    with arithmetic(dtype=dtype, device=setting.device), for_passes(loaded.device):
        for seed in range(RECURRENCES + PASSES):
            features = loaded.feature_extractor.extract(*batch(*size_of(setting), seed, setting.device))
            write = partial(loaded.model.generate, **features, **TEXTS)
            texts = []
            for place, graphs in enumerate((None, steps)):
                loaded.model.decoder.graphed_steps = graphs
                times[place] = seconds_of(lambda: texts.append(write()), setting.device)  # noqa: B023 - called at once
            [are_equal] = fetch(_are_equal(*texts))
            unequal += not are_equal
    loaded.model.decoder.graphed_steps = None
    return {
        **found,
        "passes": found["passes"] + PASSES,
        "unequal": found["unequal"] + (unequal if steps.memories else PASSES),
        "why not": found["why not"] or steps.why_not,
        "plain texts s": times[0],
        "texts of graphs s": times[1],
    }


def _are_equal(texts: Any, others: Any) -> Tensor:
    """Return whether two batches have the same tokens, with the same scores."""
    scores = [(one == other).all() for one, other in zip(texts.scores, others.scores, strict=True)]
    return torch.stack([(texts.sequences == others.sequences).all(), *scores]).all()


def batch(rows: int, seconds: float, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """Return speech of one length on a device, other rows for each seed."""
    samples, counts = pad(speech.rows([seconds] * rows, seed))
    return as_float(samples.to(device)), counts.to(device)
