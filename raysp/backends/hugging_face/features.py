"""Features of the known extractors of transformers, computed for a whole batch on the device of its waveforms.

The others are computed by the extractor itself, on the host.

Legend: B batch, S samples, T frames, K frequencies, M mel bins.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import transformers
from torch import Tensor
from torch.nn import functional

from raysp.models.features.processors import Wav2Vec2FeatureExtractor
from raysp.models.features.seamless import SeamlessM4TFeatureExtractor

Features: TypeAlias = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Returns the inputs of a model from float32 waveforms (B, S), zero from each row's end on, and their lengths (B,)."""

ENERGY_FLOOR = 1e-10
RANGE = 8.0
"""Powers of ten below the largest energy of a recording at which Whisper cuts its log-mels."""


def known_features(extractor: Any) -> Features | None:  # noqa: ANN401 - a class of transformers
    """Return the function that computes an extractor's features for a batch; None if its class or settings are unknown.

    Rows without an attention mask are normalised with their padding, as by the original.
    """
    if getattr(extractor, "padding_side", "right") != "right":
        return None
    if type(extractor) is transformers.WhisperFeatureExtractor:
        is_usual = not (extractor.padding_value or extractor.dither or extractor.return_attention_mask)
        return _OfWhisper(extractor) if is_usual else None
    if type(extractor) is transformers.Wav2Vec2FeatureExtractor:
        return _Masked(Wav2Vec2FeatureExtractor(**_settings(extractor, "feature_size", "do_normalize")))
    if type(extractor) is transformers.SeamlessM4TFeatureExtractor:
        is_normalised = getattr(extractor, "do_normalize_per_mel_bins", True)  # in the file for raysp alone
        settings = _settings(extractor, "feature_size", "num_mel_bins", "stride")
        return _Masked(SeamlessM4TFeatureExtractor(**settings, do_normalize_per_mel_bins=is_normalised))
    return None


def _settings(extractor: Any, *names: str) -> dict[str, Any]:  # noqa: ANN401
    return {
        name: getattr(extractor, name) for name in (*names, "sampling_rate", "padding_value", "return_attention_mask")
    }


class _Masked:
    """Features with a mask of each row's own ones, if the extractor returns it."""

    def __init__(self, extractor: Wav2Vec2FeatureExtractor | SeamlessM4TFeatureExtractor) -> None:
        self.extractor = extractor

    def __call__(self, waves_BS: Tensor, num_samples_B: Tensor) -> Mapping[str, Tensor]:
        if self.extractor.return_attention_mask:
            found = self.extractor.extract(waves_BS, num_samples_B)
            return {**found, "attention_mask": found["attention_mask"].int()}
        if isinstance(self.extractor, Wav2Vec2FeatureExtractor):
            num_samples_B = torch.full_like(num_samples_B, waves_BS.shape[1])
        found = self.extractor.extract(waves_BS, num_samples_B)
        return {name: value for name, value in found.items() if name != "attention_mask"}


class _OfWhisper:
    """Log-mels (B, M, T) of recordings that are padded to one length, 30 s as a rule (Radford et al. 2022)."""

    def __init__(self, extractor: Any) -> None:  # noqa: ANN401
        self.extractor = extractor
        self._constants_of: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, waves_BS: Tensor, num_samples_B: Tensor) -> Mapping[str, Tensor]:
        samples, hop, bins = self.extractor.n_samples, self.extractor.hop_length, self.extractor.feature_size
        mels_BMT = waves_BS.new_full((len(waves_BS), bins, samples // hop), math.log10(ENERGY_FLOOR))
        if waves_BS.device.type == "cpu":  # a row at a time fits the caches, and costs its own length
            for wave_S, mels_MT, length in zip(waves_BS, mels_BMT, num_samples_B.tolist(), strict=True):
                self._write(wave_S[None, :length], mels_MT[None])
        else:
            self._write(waves_BS, mels_BMT)
        least_B11 = mels_BMT.amax((1, 2), keepdim=True) - RANGE
        return {"input_features": torch.maximum(mels_BMT, least_B11).add_(4.0).div_(4.0)}

    def _write(self, waves_BS: Tensor, mels_BMT: Tensor) -> None:
        """Write the logarithms of the frames that have samples of the recordings; those after them are silent."""
        window, hop, samples = self.extractor.n_fft, self.extractor.hop_length, self.extractor.n_samples
        needed = min(samples, -(-(waves_BS.shape[1] + window) // hop) * hop)
        padded_BS = functional.pad(waves_BS, (0, needed - waves_BS.shape[1]))  # a negative number cuts
        padded_BS = functional.pad(padded_BS, (window // 2, window // 2), mode="reflect")
        hann_S, filters_KM = self._constants(waves_BS.device)
        spectrum_BTK = torch.fft.rfft(padded_BS.unfold(1, window, hop)[:, : needed // hop] * hann_S)
        energies_BTM = torch.matmul(spectrum_BTK.abs().square().to(filters_KM.dtype), filters_KM).float()
        mels_BMT[:, :, : needed // hop] = energies_BTM.clamp_(min=ENERGY_FLOOR).log10_().mT

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the window and the filters; on a GPU those in float64, since float32 products may have ten bits."""
        if device not in self._constants_of:
            with torch.inference_mode(False):
                filters_KM = torch.from_numpy(self.extractor.mel_filters)
                dtype = torch.float32 if device.type == "cpu" else torch.float64
                window = torch.hann_window(self.extractor.n_fft)
                self._constants_of[device] = window.to(device), filters_KM.to(device, dtype)
        return self._constants_of[device]
