"""Mean opinion scores of recordings by DNSMOS P.835 (Reddy et al. 2022, arXiv:2110.01763), by the rule of speechmos.

The model hears 9.01 seconds, once a second. A recording's scores are the means over these segments; a recording that is
shorter is repeated. The windows of a longer row stage the outputs of the model for the segments that end in them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysp.checkpoints.packaged import MOS, MOS_RATE
from raysp.crossing import Array
from raysp.ops.forward import Forward, Rows, Selected, StagingOp
from raysp.ops.pasts import Past
from raysp.ops.transcribing import flat

Floats = npt.NDArray[np.float32]
Rate = Callable[[Floats], Floats]
"""Returns the three outputs of the model for a segment."""

SEGMENT_SECONDS = 9.01
SEGMENT_SAMPLES = int(SEGMENT_SECONDS * MOS_RATE)
SCORES = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}
"""Polynomials from the outputs of the model to scores, highest power first, in the order of the outputs."""


def dnsmos() -> Rate:
    """Return the model, which runs a segment in the calling thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(MOS.path()), options, providers=["CPUExecutionProvider"])
    # One at a time: several in a pass take longer each, and their memory.
    return lambda segment: np.asarray(session.run(None, {"input_1": segment[None]})[0][0], np.float32)


@dataclass(eq=False)
class Rating(StagingOp):
    """Op for the opinion scores of each recording.

    Attributes:
        schema: column of structs.
        staged: staged column of a window: the outputs of the model, three for each segment.
        rate: the model; None: only `join` is called.
    """

    rate: Rate | None = None

    def __post_init__(self) -> None:
        self._threads = ThreadPoolExecutor(torch.get_num_threads(), "raysp-mos")

    def select(self, forward: Forward) -> Selected:
        return {"waves": forward.waves_BS}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        assert self.rate is not None
        waves = [wave[:length] for wave, length in zip(arrays["waves"], rows.lengths.samples, strict=True)]
        segments = [[*segments_of(wave, past)] for wave, past in zip(waves, rows.pasts, strict=True)]
        rated = iter(self._threads.map(self.rate, [segment for of_row in segments for segment in of_row]))
        outputs = [[value for _ in of_row for value in next(rated)] for of_row in segments]
        whole = [None if part else scores(np.array(row)) for part, row in zip(rows.parts, outputs, strict=True)]
        return [whole, rows.staged(outputs)]

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        [staged] = self.staged.names
        return (scores(flat(windows.column(staged))),)


def segments_of(wave: Floats, past: Past | None) -> Iterator[Floats]:
    """Yield the segments of a recording that end in its window, and not in the previous one.

    Args:
        wave: the window.
        past: the samples before it; None: the window is the whole recording.
    """
    past = past or Past(np.empty(0, np.float32), 0, 0, True)
    samples, reached, end = np.concatenate([past.samples, wave]), past.reached, past.start + len(wave)
    first_sample = past.start - len(past.samples)
    if past.is_last and end < SEGMENT_SAMPLES:
        while len(samples) < SEGMENT_SAMPLES:
            samples = np.concatenate([samples, samples])
        reached, end = 0, len(samples)
    for number in range(_num_segments(reached), _num_segments(end)):
        start = number * MOS_RATE
        end_sample = int((number + SEGMENT_SECONDS) * MOS_RATE)
        if end_sample - start == SEGMENT_SAMPLES:  # rounding skips some, as in speechmos
            yield samples[start - first_sample :][:SEGMENT_SAMPLES]


def _num_segments(num_samples: int) -> int:
    """Return the number of segments of a recording: the first, then one for each second after the tenth."""
    return max(1, num_samples // MOS_RATE - 9) if num_samples >= SEGMENT_SAMPLES else 0


def scores(outputs: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the mean scores of segments, from the outputs of the model, three for each segment."""
    by_score = outputs.reshape(-1, len(SCORES)).T.astype(np.float64)
    return {
        name: float(np.polyval(polynomial, values).mean())
        for (name, polynomial), values in zip(SCORES.items(), by_score, strict=True)
    }
