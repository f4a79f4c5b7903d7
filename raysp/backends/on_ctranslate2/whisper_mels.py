"""Log-mel energies of Whisper (Radford et al. 2022), equal to the last bit to those of faster-whisper.

A frame is centred on every tenth millisecond. A hundredth of a second of silence follows the recording and is left out
afterwards; frames after the recording are 0 in the model's input, not silent. In eight bits another rounding of the
input writes another text now and then, so arrays and the order of operations are those of numpy there.

Legend: S samples, T frames, K frequencies, M mel bins.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from raysp.models.features.parakeet_features import slaney_filters

Floats = npt.NDArray[np.float32]
RATE, WINDOW, HOP = 16_000, 400, 160
ENERGY_FLOOR = 1e-10
RANGE = 8.0
"""Powers of ten below the largest energy of a recording at which energies are cut."""


@lru_cache(maxsize=4)
def _constants(num_bins: int) -> tuple[Floats, Floats]:
    """Return the window (S,) and the filters (M, K)."""
    filters_MK = np.ascontiguousarray(slaney_filters(num_bins, WINDOW // 2 + 1, RATE).numpy().T)
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32), filters_MK


def whisper_mels(wave_S: Floats, num_bins: int, most_frames: int) -> Floats:
    """Return the features (M, `most_frames`) of a recording, float32, zero from its end on.

    Args:
        wave_S: float32 samples at 16 kHz, at least 200; what exceeds `most_frames` is left out.
        num_bins: mel bins of the model.
        most_frames: frames of the model's input.
    """
    hann_S, filters_MK = _constants(num_bins)
    padded_S = np.pad(np.pad(wave_S, (0, HOP)), WINDOW // 2, mode="reflect")
    frames_TS = np.lib.stride_tricks.sliding_window_view(padded_S, WINDOW)[::HOP]
    spectrum_TK = np.fft.rfft(frames_TS * hann_S)[:-1].astype(np.complex64)
    mels_MT = np.log10(np.clip(filters_MK @ np.abs(spectrum_TK.T) ** 2, ENERGY_FLOOR, None))
    mels_MT = (np.maximum(mels_MT, mels_MT.max() - RANGE) + np.float32(4)) / np.float32(4)
    own = min(len(wave_S) // HOP, most_frames)
    whole_MT = np.zeros((num_bins, most_frames), np.float32)
    whole_MT[:, :own] = mels_MT[:, :own]
    return whole_MT
