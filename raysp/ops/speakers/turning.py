"""Turns of speakers: vectors of short windows of a recording, and its regions of speech."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from raysp.capabilities import Capability
from raysp.checkpoints.packaged import SPEECH_RATE
from raysp.crossing import Array, fetch
from raysp.models.labelled_passes import LabellingModel
from raysp.models.silero_vad import CHUNK_SAMPLES
from raysp.ops.forward import Forward, ListingOp, Rows, Selected
from raysp.ops.rows import PLACE
from raysp.ops.speakers.speaker_turns import Diarization, Region, within
from raysp.ops.speech.speaking import HYSTERESIS, LOWEST, Speaking
from raysp.ops.transcribing import flat, list_lengths

Floats = npt.NDArray[np.float32]

VECTORS = "vectors"
"""Prefix of the names of the vectors of each row."""
AT_ONCE = 16
"""Windows of a pass of the model. They belong to one recording, in order, so that passes do not depend on the batch."""


@dataclass(eq=False)
class Turning(ListingOp):
    """Op for the turns of the speakers of each recording.

    A recording is divided into steps. Around the middle of each step with speech a vector of a window is computed. A
    window of a longer row stages the middles and vectors of the steps that it owns, and the probabilities of speech.
    `join` computes the speakers of the whole row.

    Attributes:
        schema: column of lists of structs.
        staged: staged columns of a window of a longer row: the columns of `speaking`, middles and vectors.
        speaking: op for the regions of speech.
        diarization: returns the turns.
        speaker_model: checkpoint with x-vectors; None: only `join` is called.
        window_samples: samples of a window; a shorter recording is one window.
        step_samples: samples between the middles of windows.
        frame_stride: samples between the frames that windows of a longer row own.
    """

    speaking: Speaking
    diarization: Diarization
    speaker_model: LabellingModel | None
    _: KW_ONLY
    window_samples: int
    step_samples: int
    frame_stride: int

    def select(self, forward: Forward) -> Selected:
        # The host waits for the probabilities of speech, which select the windows.
        selected, rows = self.speaking.select(forward), forward.rows
        arrays = dict(zip(selected, fetch(*cast("Iterable[Tensor]", selected.values())), strict=True))
        regions, *of_speech = self.speaking.columns(arrays, rows)
        middles = [self._middles(rows, row, regions[row], of_speech) for row in range(len(rows.parts))]
        vectors = {f"{VECTORS} {row}": self._vectors(forward, row, at) for row, at in enumerate(middles) if len(at)}
        return {"regions": regions, "of speech": of_speech, "middles": middles, **vectors}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        regions, middles = arrays["regions"], arrays["middles"]
        values: list[tuple[object, ...]] = []
        for row, part in enumerate(rows.parts):
            vectors = arrays.get(f"{VECTORS} {row}")
            if part is None:
                values.append((self._turns(regions[row], middles[row], vectors),))
            else:
                speech = (column[row] for column in arrays["of speech"])
                own = middles[row] - part[0] * self.frame_stride
                values.append((*speech, own, [] if vectors is None else vectors.ravel()))
        return rows.either(self, values)

    def _middles(
        self, rows: Rows, row: int, regions: object, of_speech: Sequence[Sequence[Any]]
    ) -> npt.NDArray[np.int64]:
        """Return the middles, in samples of a window of the row, of its owned steps with speech."""
        num_samples, part = rows.lengths.samples[row], rows.parts[row]
        if part is None:
            middles = self._grid(0, num_samples)
            spans = [(start * SPEECH_RATE, end * SPEECH_RATE) for start, end in _spans(regions)]
            return middles[within(middles, spans, self.step_samples // 2)]
        first = part[0] * self.frame_stride
        if any(rows.speech):  # cut at pauses: all speech, except short pauses
            return self._grid(first, min(num_samples, part[1] * self.frame_stride))
        probabilities, offset, owned_samples = (column[row] for column in of_speech)
        middles = self._grid(first, min(num_samples, first + owned_samples))
        least = max(self.speaking.threshold - HYSTERESIS, LOWEST)
        starts = first + offset + CHUNK_SAMPLES * np.flatnonzero(np.asarray(probabilities) >= least)
        return middles[within(middles, [(at, at + CHUNK_SAMPLES) for at in starts], self.step_samples // 2)]

    def _grid(self, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the middles of the steps from sample `first` to `end`; the last step may be shorter."""
        starts = np.arange(first, end, self.step_samples)
        return (starts + np.minimum(starts + self.step_samples, end)) // 2

    def _vectors(self, forward: Forward, row: int, middles: npt.NDArray[np.int64]) -> Tensor:
        """Return the vectors of the windows around some samples, shifted to lie within the recording."""
        assert self.speaker_model is not None
        num_samples = forward.rows.lengths.samples[row]
        size = min(self.window_samples, num_samples)
        firsts = np.clip(middles - size // 2, 0, num_samples - size).tolist()
        missing = max(0, self.speaker_model.summary.min_samples - size)
        wave_S = forward.waves_BS[row, :num_samples]
        windows = [torch.nn.functional.pad(wave_S[first : first + size], (0, missing)) for first in firsts]
        passes = [windows[first : first + AT_ONCE] for first in range(0, len(windows), AT_ONCE)]
        return torch.cat([_vectors(self.speaker_model, torch.stack(of_pass)) for of_pass in passes])

    def _turns(
        self, regions: object, middles: npt.NDArray[np.int64], vectors_NE: Floats | None
    ) -> list[dict[str, object]]:
        if vectors_NE is None:
            return []
        vectors = np.asarray(vectors_NE, np.float64)
        return [turn._asdict() for turn in self.diarization(_spans(regions), middles / SPEECH_RATE, vectors)]

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        [regions] = self.speaking.join(windows)
        middles, vectors = self.staged.names[-2:]
        counts = list_lengths(windows, middles)
        if not sum(counts):
            return ([],)
        middles_N = flat(windows.column(middles)) + np.repeat(self._firsts(windows), counts)
        vectors_NE = flat(windows.column(vectors)).reshape(len(middles_N), -1)
        return (self._turns(regions, middles_N, vectors_NE),)

    def _firsts(self, windows: pa.Table) -> npt.NDArray[np.int64]:
        """Return the sample of the recording at which the owned part of each window begins."""
        if PLACE in windows.column_names:
            return cast("npt.NDArray[np.int64]", windows.column(PLACE).to_numpy()) * self.frame_stride
        owned = windows.column(self.speaking.staged.names[-1]).to_numpy()
        return np.concatenate([[0], np.cumsum(owned)[:-1]])


def _vectors(speaker_model: LabellingModel, waves_NS: Tensor) -> Tensor:
    num_samples_N = torch.full((len(waves_NS),), waves_NS.shape[1], device=waves_NS.device)
    result = speaker_model.run(waves_NS, num_samples_N, hidden_states=False)
    return cast("Tensor", result.heads[Capability.XVECTOR]["embeddings"]).float()


def _spans(regions: object) -> list[Region]:
    return [(region["start"], region["end"]) for region in cast("list[dict[str, float]]", regions or [])]
