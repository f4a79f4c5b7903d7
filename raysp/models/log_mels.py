"""Log-mel energies of speech as Kaldi computes them (Povey et al. 2011), for whole batches, on any device.

A frame loses its mean, is pre-emphasised, windowed and transformed. All of that but the transform is linear, and the
window is zero at a frame's first sample: so the waveform is pre-emphasised once, and of each frame's mean only what
pre-emphasis leaves of a constant is taken away.

Legend: B batch, S samples, M log-mel frames, N mel bins, K frequencies.
"""

import itertools
from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Count = TypeVar("Count", int, Tensor)

WINDOW_SAMPLES = 400  # 25 ms at 16 kHz; these are samples whatever the rate
HOP_SAMPLES = 160  # 10 ms
TRANSFORM_SAMPLES = 512
PREEMPHASIS = 0.97
LOWEST_HERTZ = 20
FULL_SCALE = 2.0**15  # Kaldi's samples are 16-bit integers
ENERGY_FLOOR = 1.192092955078125e-07
VARIANCE_FLOOR = 1e-7  # added to the variance
MELS_PER_FRAME = 2  # log-mel frames that a model of pairs takes for one of its own

CHUNK_MELS = 256  # frames at a time on a CPU: 1 MB for the transform
LEAST_ROWS = 4  # a product of fewer rows sums in another order: a row's last bit would depend on what follows it
_MEAN_SAMPLES = 80  # divides window and hop, so that means are sums of a few shared sums


def num_mels(num_samples: Count) -> Count:
    """Return the log-mel frames that lie whole within numbers of samples; below 1 for too few."""
    return (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1


def samples_of_mels(count: int) -> int:
    """Return the fewest samples that hold so many log-mel frames."""
    return WINDOW_SAMPLES + (count - 1) * HOP_SAMPLES


def log_mels(waves_BS: Tensor, num_bins: int, sample_rate: int) -> Tensor:
    """Return mels_BMN, natural logarithms of energies, for every whole frame of waveforms in [-1, 1], float32."""
    num_rows, num_frames = len(waves_BS), max(0, num_mels(waves_BS.shape[1]))
    window, filters_KN = _constants(num_bins, sample_rate, waves_BS.device)
    mels_BMN = waves_BS.new_empty(num_rows, num_frames, num_bins, dtype=torch.float32)
    on_cpu = waves_BS.device.type == "cpu"
    rows_at_once, mels_at_once = (1, min(CHUNK_MELS, num_frames)) if on_cpu else (num_rows, num_frames)
    frames_BMS = waves_BS.new_zeros(rows_at_once, max(mels_at_once, LEAST_ROWS), TRANSFORM_SAMPLES, dtype=torch.float64)
    for row, start in itertools.product(range(0, num_rows, rows_at_once or 1), range(0, num_frames, mels_at_once or 1)):
        rows, end = slice(row, row + rows_at_once), min(start + mels_at_once, num_frames)
        samples_BS = waves_BS[rows, start * HOP_SAMPLES : (end - 1) * HOP_SAMPLES + WINDOW_SAMPLES]
        mels_BMN[rows, start:end] = _energies(samples_BS, frames_BMS, window, filters_KN).log_()
    return mels_BMN


def _energies(waves_BS: Tensor, frames_BMS: Tensor, window: Tensor, filters_KN: Tensor) -> Tensor:
    """Return energies_BMN, not below the floor, of waveforms that end with a whole frame.

    `frames_BMS` is where the frames are put; zero behind the window, and with rows to spare.

    In float64 up to the energies: recordings of telephones hold nothing above 4 kHz, where what float32 rounds off in
    the bands below would be all that is heard.
    """
    waves_BS = waves_BS.double()
    previous_BS = F.pad(waves_BS[:, :-1], (1, 0))
    emphasised_BMS = (waves_BS - PREEMPHASIS * previous_BS).unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
    sums_BS = waves_BS.unfold(1, _MEAN_SAMPLES, _MEAN_SAMPLES).sum(-1)
    sums_BM = sums_BS.unfold(1, WINDOW_SAMPLES // _MEAN_SAMPLES, HOP_SAMPLES // _MEAN_SAMPLES).sum(-1)
    num_frames = emphasised_BMS.shape[1]
    frames_BMS = frames_BMS[:, : max(num_frames, LEAST_ROWS)]
    windowed_BMS = frames_BMS[:, :num_frames, :WINDOW_SAMPLES]
    torch.sub(emphasised_BMS, sums_BM[:, :, None], alpha=(1 - PREEMPHASIS) / WINDOW_SAMPLES, out=windowed_BMS)
    windowed_BMS.mul_(window)
    squares_BMK2 = torch.view_as_real(torch.fft.rfft(frames_BMS)).square_()
    power_BMK = (squares_BMK2[..., 0] + squares_BMK2[..., 1]).float()
    return (power_BMK @ filters_KN)[:, :num_frames].clamp_(min=ENERGY_FLOOR)


@lru_cache(maxsize=8)
def _constants(num_bins: int, sample_rate: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the window, which brings samples to full scale too, and filters_KN."""
    with torch.inference_mode(False):
        window = FULL_SCALE * torch.hann_window(WINDOW_SAMPLES, periodic=False, dtype=torch.float64) ** 0.85  # "povey"
        return window.to(device), mel_filters(num_bins, sample_rate).float().to(device)


def mel_filters(num_bins: int, sample_rate: int) -> Tensor:
    """Return triangles over frequencies (K, N), float64, that are straight and equally wide in mels."""
    hertz = torch.arange(TRANSFORM_SAMPLES // 2 + 1, dtype=torch.float64) * (sample_rate / TRANSFORM_SAMPLES)
    limits = _mels(torch.tensor([LOWEST_HERTZ, sample_rate // 2], dtype=torch.float64)).tolist()
    corners = torch.linspace(limits[0], limits[1], num_bins + 2, dtype=torch.float64)
    rising = (_mels(hertz)[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - _mels(hertz)[:, None]) / (corners[2:] - corners[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0)


def _mels(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log(1.0 + hertz / 700.0)


def normalised(mels_BMN: Tensor, num_mels_B: Tensor, padding: float = 0.0) -> Tensor:
    """Bring each bin of each row to zero mean and unit variance over the row's own frames; `padding` behind them."""
    out_BM1 = (torch.arange(mels_BMN.shape[1], device=mels_BMN.device) >= num_mels_B[:, None])[:, :, None]
    # Sums in float64: the same to the last bit of float32 however long the padding is.
    count_B11 = num_mels_B.clamp(min=1)[:, None, None].double()
    mean_B1N = mels_BMN.masked_fill(out_BM1, 0.0).sum(1, keepdim=True, dtype=torch.float64) / count_B11
    centred_BMN = (mels_BMN - mean_B1N.float()).masked_fill_(out_BM1, 0.0)
    variance_B1N = centred_BMN.square().sum(1, keepdim=True, dtype=torch.float64) / (count_B11 - 1).clamp(min=1)
    scaled_BMN = centred_BMN.div_((variance_B1N + VARIANCE_FLOOR).sqrt().float())
    return scaled_BMN.masked_fill_(out_BM1, padding) if padding else scaled_BMN
