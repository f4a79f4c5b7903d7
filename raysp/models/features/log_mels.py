"""Log-mel energies of speech as Kaldi computes them (Povey et al. 2011), for whole batches, on any device.

A frame loses its mean, is pre-emphasised, windowed and transformed. All steps before the transform are linear,
and the window is zero at the first sample of a frame. So the waveform is pre-emphasised once, and each frame loses only
its pre-emphasised mean.

Legend: B batch, S samples, M log-mel frames, N mel bins, K real and imaginary parts of frequencies.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from raysp.models.base.row_layout import Count

Band = tuple[slice, slice, Tensor]
"""A range of bins, the range of frequencies with nonzero weights, and the weights filters_KN."""

WINDOW_SAMPLES = 400  # 25 ms at 16 kHz; constant in samples at any rate
HOP_SAMPLES = 160  # 10 ms
TRANSFORM_SAMPLES = 512
PREEMPHASIS = 0.97
LOWEST_HERTZ = 20
FULL_SCALE = 2.0**15  # Kaldi's samples are 16-bit integers
ENERGY_FLOOR = 1.192092955078125e-07
VARIANCE_FLOOR = 1e-7  # added to the variance
MELS_PER_FRAME = 2  # log-mel frames per frame of a model that reads pairs

CHUNK_MELS = 256  # frames at a time on a CPU: 1 MB for the transform
BAND_BINS = 16  # filters per product: neighbours are nonzero at few frequencies only
LEAST_ROWS = 4  # products of fewer rows sum in another order: the last bit of a row would depend on the next rows
_MEAN_SAMPLES = 80  # divides window and hop, so that means are sums of a few shared sums


def num_mels(num_samples: Count) -> Count:
    """Return the number of whole log-mel frames in these numbers of samples; below 1 for too few."""
    return (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1


def samples_of_mels(count: int) -> int:
    """Return the smallest number of samples with this number of log-mel frames."""
    return WINDOW_SAMPLES + (count - 1) * HOP_SAMPLES


def log_mels(waves_BS: Tensor, num_bins: int, sample_rate: int) -> Tensor:
    """Return mels_BMN, natural logarithms of energies, for every whole frame of waveforms in [-1, 1], float32."""
    num_frames = max(0, num_mels(waves_BS.shape[1]))
    mels_BMN = waves_BS.new_empty(len(waves_BS), num_frames, num_bins, dtype=torch.float32)
    if waves_BS.device.type == "cpu":
        for wave_S, mels_MN in zip(waves_BS, mels_BMN, strict=True):
            _write_row(wave_S, mels_MN, sample_rate)
    else:
        _write_rows(waves_BS, mels_BMN, sample_rate)
    return mels_BMN


def padded_log_mels(
    waves_BS: Tensor,
    num_mels_B: Tensor,
    num_bins: int,
    sample_rate: int,
    *,
    multiple: int = 1,
    padding: float = 0.0,
    is_normalised: bool = True,
) -> Tensor:
    """Return mels_BMN of a batch of rows.

    Args:
        waves_BS: Samples in [-1, 1]; at least one frame is returned.
        num_mels_B: Number of frames of each row, on the device of the waveforms.
        num_bins: Mel bins.
        sample_rate: In hertz.
        multiple: The number of returned frames is rounded up to a multiple of this.
        padding: Value after a row's frames.
        is_normalised: Whether each bin has zero mean and unit variance over a row's own frames.
    """
    num_frames = max(0, num_mels(waves_BS.shape[1]))
    num_padded = -(-max(1, num_frames) // multiple) * multiple
    mels_BMN = waves_BS.new_empty(len(waves_BS), num_padded, num_bins, dtype=torch.float32)
    if waves_BS.device.type != "cpu":
        _write_rows(waves_BS, mels_BMN[:, :num_frames], sample_rate)
        out_BM1 = (torch.arange(num_padded, device=mels_BMN.device) >= num_mels_B[:, None])[:, :, None]
        if is_normalised:
            normalise(mels_BMN, num_mels_B, out_BM1)
        return mels_BMN.masked_fill_(out_BM1, padding)
    # On a CPU the cost of a row depends on its own length, not on the longest row.
    for wave_S, mels_MN, count in zip(waves_BS, mels_BMN, num_mels_B.tolist(), strict=True):
        _write_row(wave_S, mels_MN[:count], sample_rate)
        if is_normalised:
            normalise(mels_MN[None, :count], torch.tensor([count]), None)
        mels_MN[count:] = padding
    return mels_BMN


def _write_row(wave_S: Tensor, mels_MN: Tensor, sample_rate: int) -> None:
    """Write the first log-mels of one waveform, in chunks that fit a core's cache."""
    num_frames = len(mels_MN)
    frames_MS = _buffer(min(num_frames, CHUNK_MELS), wave_S.device)
    for start in range(0, num_frames, CHUNK_MELS):
        end = min(start + CHUNK_MELS, num_frames)
        _write(
            wave_S[None, start * HOP_SAMPLES : samples_of_mels(end)], frames_MS, mels_MN[None, start:end], sample_rate
        )


def _write_rows(waves_BS: Tensor, mels_BMN: Tensor, sample_rate: int) -> None:
    """Write log-mels of whole waveforms in one pass."""
    batch, num_frames, _ = mels_BMN.shape
    if mels_BMN.numel() > 0:
        frames_MS = _buffer(batch * num_frames, waves_BS.device)
        _write(waves_BS[:, : samples_of_mels(num_frames)], frames_MS, mels_BMN, sample_rate)


def _buffer(num_frames: int, device: torch.device) -> Tensor:
    """Return frames_MS, zero outside the window."""
    return torch.zeros(max(num_frames, LEAST_ROWS), TRANSFORM_SAMPLES, dtype=torch.float64, device=device)


def _write(waves_BS: Tensor, frames_MS: Tensor, mels_BMN: Tensor, sample_rate: int) -> None:
    """Write log-mels of waveforms that end with a whole frame, using a buffer for all frames."""
    num_frames, num_bins = mels_BMN.shape[:2].numel(), mels_BMN.shape[2]
    window_S, bands = _constants(num_bins, sample_rate, waves_BS.device)
    _put_frames(waves_BS, frames_MS[:num_frames], window_S)
    spectrum_MK = torch.fft.rfft(frames_MS[: max(num_frames, LEAST_ROWS)])
    squares_MK = torch.view_as_real(spectrum_MK).float().square_().flatten(1)
    energies_MN = squares_MK.new_empty(len(squares_MK), num_bins)
    for bins, used, filters_KN in bands:
        torch.mm(squares_MK[:, used], filters_KN, out=energies_MN[:, bins])
    torch.log(energies_MN[:num_frames].clamp_(min=ENERGY_FLOOR).view_as(mels_BMN), out=mels_BMN)


def _put_frames(waves_BS: Tensor, frames_MS: Tensor, window_S: Tensor) -> None:
    """Write the windowed frames of waveforms to a buffer.

    In float64, like the transform: above 4 kHz telephone recordings are silent, and float32 rounding errors of lower
    bands would be the only signal.
    """
    waves_BS = waves_BS.double()
    emphasised_BS = torch.sub(waves_BS[:, 1:], waves_BS[:, :-1], alpha=PREEMPHASIS)
    sums_BS = waves_BS.unfold(1, _MEAN_SAMPLES, _MEAN_SAMPLES).sum(-1)
    sums_BM = sums_BS.unfold(1, WINDOW_SAMPLES // _MEAN_SAMPLES, HOP_SAMPLES // _MEAN_SAMPLES).sum(-1)
    framed_BMS = emphasised_BS.unfold(1, WINDOW_SAMPLES - 1, HOP_SAMPLES)
    windowed_BMS = frames_MS.view(*sums_BM.shape, -1)[..., 1:WINDOW_SAMPLES]  # the window is zero at its first sample
    torch.sub(framed_BMS, sums_BM[:, :, None], alpha=(1 - PREEMPHASIS) / WINDOW_SAMPLES, out=windowed_BMS)
    windowed_BMS.mul_(window_S[1:])


@lru_cache(maxsize=8)
def _constants(num_bins: int, sample_rate: int, device: torch.device) -> tuple[Tensor, list[Band]]:
    """Return the window (Kaldi's "povey"), scaled to full scale, and the filters."""
    with torch.inference_mode(False):
        hann_S = torch.hann_window(WINDOW_SAMPLES, periodic=False, dtype=torch.float64)
        window_S = FULL_SCALE * hann_S**0.85
        filters_KN = mel_filters(num_bins, sample_rate).float().repeat_interleave(2, dim=0).to(device)
        bands = [
            _band(filters_KN, slice(start, min(start + BAND_BINS, num_bins))) for start in range(0, num_bins, BAND_BINS)
        ]
        return window_S.to(device), bands


def _band(filters_KN: Tensor, bins: slice) -> Band:
    used_K = filters_KN[:, bins].any(dim=1).nonzero()
    used = slice(int(used_K.min()), int(used_K.max()) + 1)
    return bins, used, filters_KN[used, bins].contiguous()


def mel_filters(num_bins: int, sample_rate: int) -> Tensor:
    """Return triangular filters (K, N), float64, linear and equally wide in mels."""
    hertz = torch.arange(TRANSFORM_SAMPLES // 2 + 1, dtype=torch.float64) * (sample_rate / TRANSFORM_SAMPLES)
    limits = _mels(torch.tensor([LOWEST_HERTZ, sample_rate // 2], dtype=torch.float64)).tolist()
    corners = torch.linspace(limits[0], limits[1], num_bins + 2, dtype=torch.float64)
    rising = (_mels(hertz)[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - _mels(hertz)[:, None]) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0)


def _mels(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log(1.0 + hertz / 700.0)


def normalise(
    mels_BMN: Tensor,
    num_mels_B: Tensor,
    out_BM1: Tensor | None,
    deviation: Callable[[Tensor], Tensor] = lambda variance: (variance + VARIANCE_FLOOR).sqrt(),
) -> None:
    """Normalise each bin over a row's own frames, in place, without a device synchronisation; zeros after them.

    Args:
        mels_BMN: Log-mels.
        num_mels_B: Frames of each row.
        out_BM1: True after a row's frames; None: all frames are of their row.
        deviation: Returns deviations by variances.
    """
    count_B11 = num_mels_B.clamp(min=1)[:, None, None].double()
    if out_BM1 is not None:
        mels_BMN.masked_fill_(out_BM1, 0.0)
    # In float64: a float32 sum would depend on how long the padding is.
    mels_BMN.sub_((mels_BMN.sum(1, keepdim=True, dtype=torch.float64) / count_B11).float())
    if out_BM1 is not None:
        mels_BMN.masked_fill_(out_BM1, 0.0)
    squares_B1N = mels_BMN.square().sum(1, keepdim=True, dtype=torch.float64)
    mels_BMN.div_(deviation(squares_B1N / (count_B11 - 1).clamp(min=1)).float())
