"""Signals of recordings: levels of the samples, and the probability that there is no speech."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import pad

from raysp.audio.levels import Cells, cell_samples, levels, weighting
from raysp.columns import DIGEST, SECONDS
from raysp.crossing import Array, send
from raysp.models.base.outputs import ModelOutput
from raysp.ops.forward import Forward, Rows, Selected, StagingOp
from raysp.ops.late_steps import carried_values

CLIPPED, CLIPPED_RUN = 0.99, 3
"""Clipping: at least `CLIPPED_RUN` samples in a row of at least `CLIPPED`, as resampled flat tops are uneven."""
HISTORY_SECONDS = 0.128
"""Length of the response of the loudness filters; later values are below 1e-12 of it."""
PIECE_FACTOR = 4
"""Least ratio of the samples of a piece of the convolution to the samples of the history."""
SAMPLES_AT_ONCE = 2**21
"""Padded samples that are measured at once, of which there are several copies in double precision."""
NO_SPEECH = "no speech"
"""Name of the probabilities of no speech among the values that a pass gives."""
MEASURES = ("energy", "weighted", "clipped", "peaks", "spectra")
"""Names of the tensors of measures: of cells, and spectra of windows."""


class Owned(NamedTuple):
    """Places of the cells of a window that belong to its row."""

    first: int
    until: int
    """End of the cells that the window owns."""
    end: int
    """End of its cells; beyond `until` only in the last window of a row."""


@dataclass(eq=False)
class Measuring(StagingOp):
    """Op for the levels of each recording.

    For a window of a longer row it stages the levels of the cells that the window owns. `join` computes the levels of
    the row from all windows. Arithmetic is in double precision, so that batches and windows change a result by about
    1e-12 of it before it is stored in single precision. If windows overlap by less than `2 * HISTORY_SECONDS`, the
    loudness filters restart with each window.

    Attributes:
        schema: column of structs, then the columns of texts, which are null, and the column of digests.
        staged: staged columns of a window: energies, weighted energies and clipped samples of cells, the number of
            cells that it owns, peak and spectrum.
        sample_rate: sample rate of the checkpoint.
        frame_stride: samples between the frames that windows own.
        at_quiet_points: whether windows do not overlap, and own all of their samples.
        language: column of the source with the language of each row, which goes into the struct; None: no language.
        digest: name of the column of digests; None: there are none.
        silence: name in the struct of the probability that there is no speech, for a longer row the mean over its
            windows, which stage it last; None: there is none.
        find: returns this probability of each window of a pass; None if only `join` is called.
    """

    _: KW_ONLY
    sample_rate: int
    frame_stride: int
    at_quiet_points: bool
    language: str | None = None
    digest: str | None = None
    silence: str | None = None
    find: Callable[[ModelOutput], Sequence[float]] | None = None

    @property
    def cell(self) -> int:
        """Samples of a cell."""
        return cell_samples(self.sample_rate, self.frame_stride)

    def select(self, forward: Forward) -> Selected:
        waves_BS, owned = forward.waves_BS, self._owned(forward.rows)
        most = max(1, SAMPLES_AT_ONCE // max(1, waves_BS.shape[1]))
        [owned_B3] = send(waves_BS.device, np.array(owned, np.int64).reshape(-1, len(Owned._fields)))
        parts = [
            self._measured(
                pad(waves_BS[begin : begin + most], (0, -waves_BS.shape[1] % self.cell)),
                owned_B3[begin : begin + most],
            )
            for begin in range(0, len(owned), most)
        ]
        measures = parts[0] if len(parts) == 1 else [torch.cat(of_parts) for of_parts in zip(*parts, strict=True)]
        silence = {NO_SPEECH: self.find(forward.encoded)} if self.find else {}
        return {**dict(zip(MEASURES, measures, strict=True)), **silence}

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        owned, nulls = self._owned(rows), [None] * len(rows.parts)
        languages, digests = (rows.source[name] if name else nulls for name in (self.language, self.digest and DIGEST))
        silences = arrays[NO_SPEECH] if self.silence else nulls
        windows = zip(self._cells(arrays, owned), owned, rows.parts, languages, digests, silences, strict=True)
        values = [
            self._values(cells, language, digest, silence)
            if part is None
            else self._staged(cells, places.until - places.first, silence)
            for cells, places, part, language, digest, silence in windows
        ]
        return rows.either(self, values)

    def _staged(self, cells: Cells, num_owned: int, silence: object) -> tuple[object, ...]:
        """Return the values that a window stages."""
        measures = (cells.energy, cells.weighted, cells.clipped, num_owned, cells.peak, cells.spectrum)
        return (*measures, silence) if self.silence else measures

    def _values(self, cells: Cells, language: object, digest: object, silence: object) -> tuple[object, ...]:
        """Return the values of a row."""
        signals = {**levels(cells), **({"language": language} if self.language else {})}
        signals |= {self.silence: silence} if self.silence else {}
        return (signals, *(digest if name == self.digest else None for name in self.schema.names[1:]))

    def _owned(self, rows: Rows) -> list[Owned]:
        """Return the cells of each window that belong to its row."""
        lengths = zip(rows.parts, rows.lengths.samples, rows.lengths.frames, strict=True)
        return [self._of_window(part, max(1, samples // self.cell), frames) for part, samples, frames in lengths]

    def _of_window(self, part: tuple[int, int] | None, num_cells: int, num_frames: int) -> Owned:
        if part is None or self.at_quiet_points:
            return Owned(0, num_cells, num_cells)
        first, until = (frame * self.frame_stride // self.cell for frame in part)
        return Owned(first, until, num_cells if part[1] >= num_frames else until)

    def _cells(self, arrays: Mapping[str, Array], owned: Sequence[Owned]) -> Iterator[Cells]:
        """Yield the cells of each window."""
        *of_cells, spectra = (arrays[name] for name in MEASURES)
        for row, (first, _, end) in enumerate(owned):
            energy, weighted, clipped, peaks = (values[row, first:end] for values in of_cells)
            yield Cells(
                sample_rate=self.sample_rate,
                samples=self.cell,
                energy=energy.astype(np.float32),
                weighted=weighted.astype(np.float32),
                clipped=clipped.astype(np.int32),
                peak=float(peaks.max(initial=0)),
                spectrum=spectra[row],
            )

    def _measured(self, waves_BS: Tensor, owned_B3: Tensor) -> tuple[Tensor, ...]:
        """Return energies, weighted energies, clipped samples and peaks of cells (B, N), and spectra (B, F)."""
        waves_BNC = self._in_cells(waves_BS)
        window_C = torch.hann_window(self.cell, device=waves_BS.device)
        power_BNF = torch.view_as_real(torch.fft.rfft(waves_BNC * window_C)).double().square().sum(-1)
        places_N = torch.arange(waves_BNC.shape[1], device=waves_BS.device)
        first_B, _, end_B = owned_B3.T
        owned_BN = (places_N >= first_B[:, None]) & (places_N < end_B[:, None])
        return (
            waves_BNC.double().square().mean(-1),
            self._in_cells(self._weighted(waves_BS)).square().mean(-1),
            self._in_cells(_clipped(waves_BS)).sum(-1),
            waves_BNC.abs().amax(-1),
            torch.einsum("bnf,bn->bf", power_BNF, owned_BN.double()),
        )

    def _in_cells(self, samples_BS: Tensor) -> Tensor:
        return samples_BS.reshape(len(samples_BS), -1, self.cell)

    def _weighted(self, waves_BS: Tensor) -> Tensor:
        """Return waveforms filtered for loudness, by overlapping pieces (overlap-save)."""
        history = round(HISTORY_SECONDS * self.sample_rate)
        size = 1 << (PIECE_FACTOR * history - 1).bit_length()
        hop, num_samples = size - history, waves_BS.shape[1]
        response_F = _response(self.sample_rate, size, waves_BS.device)
        pieces_BKS = pad(waves_BS.double(), (history, -num_samples % hop)).unfold(1, size, hop)
        filtered_BKS: Tensor = torch.fft.irfft(torch.fft.rfft(pieces_BKS) * response_F, size)[..., history:]
        return filtered_BKS.reshape(len(waves_BS), -1)[:, :num_samples]

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        names = self.staged.names
        energies, weighted, clipped, spectra = (_arrays(windows, names[place]) for place in (0, 1, 2, 5))
        owned, peaks = (windows.column(names[place]).to_pylist() for place in (3, 4))
        owned[-1] = len(energies[-1])
        parts = [
            Cells(self.sample_rate, self.cell, energy[:end], weights[:end], clips[:end], peak, spectrum)
            for energy, weights, clips, spectrum, end, peak in zip(
                energies, weighted, clipped, spectra, owned, peaks, strict=True
            )
        ]
        language, digest = (
            carried_values(windows, name)[-1] if name else None for name in (self.language, self.digest and DIGEST)
        )
        silences: list[Any] = windows.column(names[6]).to_pylist() if self.silence else [0.0]
        signals, *more = self._values(Cells.joined(parts), language, digest, sum(silences) / len(silences))
        return ({**cast("Mapping[str, object]", signals), "read": windows_with_text(windows)}, *more)


@functools.lru_cache(maxsize=16)
def _response(sample_rate: int, size: int, device: torch.device) -> Tensor:
    """Return the response of the loudness filters on a device, where it is sent once."""
    with torch.inference_mode(False):
        return torch.from_numpy(weighting(sample_rate, size)).to(device)  # the host waits: any stream may use it next


def _clipped(waves_BS: Tensor) -> Tensor:
    """Return a mask, as 0 and 1, of the samples in a run of high values, of one sign or both."""
    high_BS = waves_BS.abs() >= CLIPPED
    if high_BS.device.type == "cpu" and not high_BS.any():  # on a GPU the host would wait for the answer
        return high_BS.int()
    runs_BS = high_BS.float()[:, None]
    # The minimum of each run: torch pools only maxima.
    all_high = torch.nn.functional.max_pool1d(-pad(runs_BS, (CLIPPED_RUN - 1,) * 2), CLIPPED_RUN, 1)
    return (-all_high).unfold(-1, CLIPPED_RUN, 1).amax(-1)[:, 0].int()


def windows_with_text(windows: pa.Table) -> list[dict[str, float]] | None:
    """Return start and end of the windows in which a text decoder wrote something; None without a text decoder."""
    parts = next((name for name in windows.column_names if name.endswith("_part")), None)
    if parts is None:
        return None
    ends = np.cumsum(windows.column(SECONDS).to_numpy()).tolist()
    texts = cast("list[str | None]", windows.column(parts).to_pylist())
    spans = zip([0.0, *ends], ends, texts, strict=False)
    return [{"start": start, "end": end} for start, end, text in spans if text and text.strip()]


def _arrays(windows: pa.Table, name: str) -> list[Any]:
    """Return the lists of a column as arrays."""
    return [np.asarray(cast("pa.ListScalar[Any]", value).values) for value in windows.column(name)]
