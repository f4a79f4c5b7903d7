"""Rows in packs: whether they have the same bits alone and in any company, for the certificate of this card.

Each row goes through a model alone in a pack of one size, then in packs with other rows and fillers, in other orders
and so at other places, then in packs of smaller sizes. Compared is every bit of what heads and encoder return, of
sums over frames, signals and speech of the samples, and the text and score that a text decoder or transducer writes,
for each number of beams. All of it happens once more with passes, and greedy steps of a text decoder, as graphs.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.gpu import decoders, models, speech
from benchmarks.gpu.packages import absent
from benchmarks.gpu.part import Figures, Setting
from raysp.capabilities import Capability
from raysp.crossing import fetch
from raysp.device_graphs import has_graphs
from raysp.devices import is_out_of_memory
from raysp.errors import RunError
from raysp.models.loading import LoadedCheckpoint, load_checkpoint
from raysp.models.summary import CheckpointSummary
from raysp.ops.blocks import pack_frames
from raysp.ops.embeddings import ChosenFrames
from raysp.ops.forward import Forward
from raysp.ops.labelling import Labelling
from raysp.ops.precision import HALF, Batching
from raysp.specs.outputs.signals import Signals
from raysp.specs.outputs.speech import Speech
from raysp.specs.outputs.transcript import Transcript

MODELS = ("wav2vec2-base 94M", "unispeech-large 315M", "w2v-bert 600M", "fastconformer 110M", "sew-d 94M")
"""One model of each class with published weights. Certificates of checkpoints with other sizes need `--checkpoint`."""
DECODER = "encoder-decoder"
"""The same for text decoders."""
PACK_SECONDS, SMALL_PACK_SECONDS = (600.0, 300.0, 150.0), (8.0, 4.0)
"""Audio of a pack, the size that a run has on a card with enough memory first."""
TEXT_PACK_SECONDS = (2400.0, 1200.0, *PACK_SECONDS)
BEAMS = (1, 4)
"""Of text decoders, besides those by which a checkpoint writes."""
TOKENS, SMALL_TOKENS = 25, 4
WINDOW_SECONDS, SMALL_WINDOW_SECONDS = 30.0, 3.0
ROWS, SMALL_ROWS = 24, 4
ORDERS, SMALL_ORDERS = 6, 3

COLUMNS = ("pred_text", "pred_score", "signal", "pred_speech")
"""Labels that are compared beside the bits of a pass, where a row has them."""
MEAN = ChosenFrames(-1, None)
"""Frames of which embeddings are means, summed for all rows of a pack at once."""

Make = Callable[[], LoadedCheckpoint]


def made(setting: Setting) -> Iterator[tuple[str, str, Make]]:
    """Yield (name, dtype, what loads it) of each model: published sizes in bfloat16, checkpoints in half precision."""
    names = MODELS[:1] if setting.few else MODELS
    for name in names:
        yield name, "bfloat16", partial(models.make, name, setting.device, "bfloat16")
    if not setting.few:
        parts = decoders.encoder_decoder(not setting.is_gpu)
        yield DECODER, "bfloat16", partial(models.loaded, *parts, Numbers(), setting.device, "bfloat16")
    for folder in setting.checkpoints:
        for dtype in HALF:
            load = partial(load_checkpoint, Path(folder), dtype=getattr(torch, dtype), device=setting.device)
            yield folder, dtype, load


def compare(
    make: Make, dtype: str, setting: Setting, found: list[dict[str, object]], graphs: list[dict[str, object]]
) -> Figures:
    """Compare rows in packs of each size with the same rows alone, and add the counts to `found` and `graphs`."""
    loaded = make()
    if (why := _why_not(loaded, dtype, setting)) is not None:
        return {"left out": why}
    as_graphs: list[dict[str, object]] = []
    runs = [run for beams in beams_of(loaded, setting) for run in _runs(loaded, dtype, setting, beams, as_graphs)]
    found += runs
    graphs += as_graphs
    kept = sum(run["unequal"] == 0 for run in runs)
    return {"sizes": len(runs), "keep bits": kept, "share": kept / max(1, len(runs)), "of": runs, "graphs": as_graphs}


def _runs(
    loaded: LoadedCheckpoint, dtype: str, setting: Setting, beams: int, graphs: list[dict[str, object]]
) -> Iterator[dict[str, object]]:
    """Yield the counts of each size of packs, with so many texts of each row; add those of graphs of the first size."""
    reference: list[bytes] | None = None
    of_gpu = TEXT_PACK_SECONDS if loaded.summary.writes_text else PACK_SECONDS
    for seconds in of_gpu if setting.is_gpu else SMALL_PACK_SECONDS:
        try:
            alone, others, packs = compared(labelling(loaded, dtype, setting, seconds, beams), setting, seconds)
        except torch.OutOfMemoryError:
            continue  # a size that no run on this card has
        if reference is None:
            reference = alone
            if beams == 1 and has_graphs(setting.device):
                graphs.append(of_graphs(loaded, dtype, setting, seconds, reference))
        yield {
            "architecture": loaded.summary.architecture,
            "shapes": loaded.summary.shapes,
            "dtype": dtype,
            "frames": frames_of(loaded.summary, setting, seconds),
            "rows": len(alone),
            "packs": packs,
            "unequal": _unequal(reference, alone, others),
            "beams": beams,
        }


def of_graphs(
    loaded: LoadedCheckpoint, dtype: str, setting: Setting, seconds: float, expected: list[bytes]
) -> dict[str, object]:
    """Return the counts of rows in packs with graphs, against their bits alone without; all differ without a graph."""
    op = labelling(loaded, dtype, setting, seconds, graphs=True)
    alone, others, packs = compared(op, setting, seconds)
    assert op.graphs is not None
    steps = op.graphs.steps
    were_recorded = not op.graphs.why_not and (op.graphs.graphs if steps is None else steps.memories)
    return {
        "architecture": loaded.summary.architecture,
        "dtype": dtype,
        "rows": len(alone),
        "frames": frames_of(loaded.summary, setting, seconds),
        "passes": len(alone) + packs,
        "unequal": _unequal(expected, alone, others) if were_recorded else len(alone),
        "in_packs": True,
        "why not": op.graphs.why_not or (steps.why_not if steps is not None else ""),
    }


def _unequal(expected: list[bytes], alone: list[bytes], others: list[list[bytes]]) -> int:
    """Return how many rows have other bits than expected, alone in a pack or with others."""
    each = zip(expected, alone, others, strict=True)
    return sum(any(one != row for one in (first, *rest)) for row, first, rest in each)


def beams_of(loaded: LoadedCheckpoint, setting: Setting) -> Sequence[int]:
    """Return the numbers of beams that are measured."""
    if not loaded.summary.writes_text:
        return (1,)
    own = loaded.model.generation_config.num_beams or 1
    return sorted({*(BEAMS[:1] if setting.few else BEAMS), own})


def _why_not(loaded: LoadedCheckpoint, dtype: str, setting: Setting) -> str | None:
    op = labelling(loaded, dtype, setting, SMALL_PACK_SECONDS[0])
    return None if op.grouping.batching is Batching.PACKED else "its windows do not go in packs on this device"


def outputs_of(loaded: LoadedCheckpoint, beams: int, tokens: int) -> list[Any]:
    """Return the ops of the bits of a row, of its signals and speech, and of its text where a decoder writes it."""
    of_samples = [Signals().op(loaded), *([] if absent(("silero_vad",)) else [Speech().op(loaded)])]
    if loaded.summary.writes_text:
        longest = min(tokens, loaded.model.decoder.num_positions)
        generate = {"num_beams": beams, "max_new_tokens": longest, "min_new_tokens": longest // 2}
        return [Bits(), *of_samples, Transcript(generate=generate).op(loaded)]
    return [Bits(), *of_samples, *([Transcript().op(loaded)] if Capability.TRANSDUCER in loaded.summary.gives else [])]


def frames_of(summary: CheckpointSummary, setting: Setting, seconds: float) -> int:
    """Return the frames of a pack."""
    return pack_frames(summary, batch_seconds=seconds, window_seconds=_window_seconds(setting))


def compared(op: Labelling, setting: Setting, seconds: float) -> tuple[list[bytes], list[list[bytes]], int]:
    """Return the bits of each row alone in a pack, those in packs with others, and the number of these packs."""
    rows = speech.rows(lengths(setting))
    alone = [digests(op, [row])[0] for row in rows]
    others: list[list[bytes]] = [[] for _ in rows]
    packs = 0
    for order in range(ORDERS if setting.is_gpu else SMALL_ORDERS):
        for pack, members in _packs(rows, setting, seconds, order):
            packs += 1
            for member, digest in zip(members, digests(op, pack), strict=True):
                if member is not None:
                    others[member].append(digest)
    if not all(others):
        raise RuntimeError(f"{sum(not one for one in others)} of {len(rows)} rows were in no pack with others")
    return alone, others, packs


def lengths(setting: Setting) -> list[float]:
    """Return the seconds of the rows, the longest as long as a window."""
    most, count = _window_seconds(setting), ROWS if setting.is_gpu else SMALL_ROWS
    return [round(most * (number / count) ** 1.5, 3) for number in range(1, count + 1)]


def _packs(
    rows: Sequence[np.ndarray], setting: Setting, seconds: float, order: int
) -> Iterator[tuple[list[np.ndarray], list[int | None]]]:
    """Yield packs of all rows among fillers in a random order, each of several rows, with the numbers of the rows."""
    random = np.random.default_rng(order)
    fillers = speech.rows(random.uniform(0.3, _window_seconds(setting), len(rows)).tolist(), seed=1 + order)
    known = [*((row, number) for number, row in enumerate(rows)), *((row, None) for row in fillers)]
    pack: list[tuple[np.ndarray, int | None]] = []
    for place in random.permutation(len(known)):
        row = known[place]
        if sum(len(one) for one, _ in (*pack, row)) > (seconds - 1) * speech.RATE and len(pack) > 1:
            yield [one for one, _ in pack], [number for _, number in pack]
            pack = []
        pack.append(row)
    if len(pack) > 1:
        yield [one for one, _ in pack], [number for _, number in pack]


def _window_seconds(setting: Setting) -> float:
    return WINDOW_SECONDS if setting.is_gpu else SMALL_WINDOW_SECONDS


def labelling(
    loaded: LoadedCheckpoint, dtype: str, setting: Setting, seconds: float, beams: int = 1, *, graphs: bool = False
) -> Labelling:
    """Return the op of an actor whose certificate allows packs, with the bits and texts of rows as labels."""
    tokens = TOKENS if setting.is_gpu else SMALL_TOKENS
    return Labelling(
        "in memory",
        lambda _: outputs_of(loaded, beams, tokens),
        batch_seconds=seconds,
        dtype=dtype,
        device=setting.device,
        backend=models.InMemory(loaded),
        window_seconds=_window_seconds(setting),
        certified=True,
        graphs=graphs,
    )


def digests(op: Labelling, rows: Sequence[np.ndarray]) -> list[bytes]:
    """Return a digest of all bits of each row of a pack.

    Raises:
        RuntimeError: a row has none.
        torch.OutOfMemoryError: the pack does not fit.
    """
    try:
        table, _ = op(speech.block_of(rows))
    except RunError as error:
        if isinstance(error.__cause__, Exception) and is_out_of_memory(error.__cause__):
            raise torch.OutOfMemoryError(str(error)) from error
        raise
    found = table.to_pylist()
    for row in found:
        if row[Bits.NAME] is None:
            raise RuntimeError(f"a row of {len(found)} failed: {row['error_message']}")
    texts = [repr([row.get(name) for name in COLUMNS]).encode() for row in found]
    return [hashlib.sha256(row[Bits.NAME] + text).digest() for row, text in zip(found, texts, strict=True)]


class Numbers:
    """A tokenizer whose texts are the ids of tokens."""

    is_of_ctc = False

    def batch_decode(self, ids: Any, *, skip_special_tokens: bool) -> list[str]:
        """Return the ids of each text."""
        return [" ".join(map(str, row)) for row in ids.tolist()]


class Bits:
    """Op whose label is a digest of all values that a pass returns for a row."""

    NAME = "bits"
    schema = pa.schema([(NAME, pa.binary())])
    staged = pa.schema([])
    layers = (-1, 0)

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Return the digests of the windows of a pass."""
        if len(forward.places) != 1:
            raise RuntimeError(f"found the results of {len(forward.places)} windows together, expected those of one")
        outputs = [forward.output, forward.encoded, *forward.of_heads.values()]
        values = [*(value for output in outputs for value in _tensors(output.to_tuple())), MEAN.sums(forward)]
        digest = hashlib.sha256()
        for array in fetch(*(value.float() for value in values)):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return [[digest.digest()]]

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame."""
        return (None,)


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among values and in tuples of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
