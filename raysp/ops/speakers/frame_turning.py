"""Turns of speakers by a frame classifier, whose classes are speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.capabilities import Capability
from raysp.crossing import Array
from raysp.models.labelled_passes import LabellingModel
from raysp.ops.forward import Forward, ListingOp, Rows, Selected
from raysp.ops.speakers.speaker_frames import FrameDiarization, FrameWindow, stitched
from raysp.ops.transcribing import flat, list_lengths

Floats = npt.NDArray[np.float32]


@dataclass(eq=False)
class FrameTurning(ListingOp):
    """Op for the turns of the speakers of each recording, by the probabilities of a frame classifier.

    A window of a longer row stages the probabilities of all its frames. By the frames that windows share, `join`
    matches the classes of a window with the speakers of its neighbours.

    Attributes:
        schema: column of lists of structs.
        staged: staged columns of a window: probabilities, number of samples before the owned ones, and of owned ones.
        diarization: returns the turns.
        num_speakers: number of classes.
        step_stride: samples between the frames that windows of a longer row own.
        frame_stride: samples between the frames of the classifier.
        classifier: the classifier; None: it is the step's checkpoint, or only `join` is called.
    """

    diarization: FrameDiarization
    num_speakers: int
    _: KW_ONLY
    step_stride: int
    frame_stride: int
    classifier: LabellingModel | None = None

    def select(self, forward: Forward) -> Selected:
        if self.classifier is None:
            return {"scores": forward.heads[Capability.FRAME_CLASSES].logits.float().sigmoid()}
        waves = zip(forward.waves_BS, forward.rows.lengths.samples, strict=True)
        scores = [_logits(self.classifier, wave_S[:num_samples]).float().sigmoid() for wave_S, num_samples in waves]
        return {str(row): scores_TN for row, scores_TN in enumerate(scores)}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        scores = [*arrays.values()]
        if self.classifier is None:
            scores = [row_TN[:frames] for row_TN, frames in zip(arrays["scores"], rows.lengths.frames, strict=True)]
        values = [
            (self._turns(scores_TN),) if part is None else (scores_TN.ravel(), first, end - first)
            for part, scores_TN, (first, end, _) in zip(
                rows.parts, scores, rows.own_samples(self.step_stride), strict=True
            )
        ]
        return rows.either(self, values)

    def _turns(self, scores_TN: Floats) -> list[dict[str, object]]:
        return [turn._asdict() for turn in self.diarization(scores_TN)]

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        name, before, owned = self.staged.names
        edges = np.cumsum(list_lengths(windows, name))[:-1]
        scores = np.split(np.asarray(flat(windows.column(name)), np.float32), edges)
        numbers = windows.column(owned).to_numpy()
        starts = np.cumsum(numbers) - numbers
        parts = [
            FrameWindow(self._frame(start - first), self._frame(start), row.reshape(-1, self.num_speakers))
            for start, first, row in zip(starts.tolist(), windows.column(before).to_pylist(), scores, strict=True)
        ]
        return (self._turns(stitched(parts)),)

    def _frame(self, sample: int) -> int:
        return round(sample / self.frame_stride)


def _logits(classifier: LabellingModel, wave_S: Tensor) -> Tensor:
    """Return the frame logits (T, N) of a window, padded with silence to the shortest input of the model.

    A pass has one window, so that its frames are the same in any batch.
    """
    num_samples = max(len(wave_S), classifier.summary.min_samples)
    waves_BS = torch.nn.functional.pad(wave_S, (0, num_samples - len(wave_S)))[None]
    num_samples_B = torch.full((1,), num_samples, device=wave_S.device)
    result = classifier.run(waves_BS, num_samples_B, hidden_states=False)
    return cast("Tensor", result.heads[Capability.FRAME_CLASSES]["logits"])[0]
