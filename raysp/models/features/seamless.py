"""Feature extractor and processor of models that read pairs of log-mel frames.

`SeamlessM4TFeatureExtractor.extract` serves raysp's own steps: it processes a batch on the device of the waveforms, and
rows do not depend on their batch. Calling the extractor behaves as in transformers.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.models.base.batches import BatchFeature, tensors_of
from raysp.models.base.row_layout import Count
from raysp.models.features.log_mels import (
    WINDOW_SAMPLES,
    log_mels,
    normalise,
    num_mels,
    padded_log_mels,
)
from raysp.models.features.processors import FeatureExtractor, Wav2Vec2Processor, waveforms_of

Array = npt.NDArray[Any]


@dataclass(eq=False)
class SeamlessM4TFeatureExtractor(FeatureExtractor):
    """Converts waveforms to log-mel energies; `stride` neighbouring frames are concatenated.

    Each bin of a row is normalised, unless preprocessor_config.json has `do_normalize_per_mel_bins: false`. In
    transformers this is an option of the call alone. Models that separate speakers within seconds of speech need the
    unnormalised energies: speakers differ mostly by their mean and variance.
    """

    model_input_names: ClassVar[tuple[str, ...]] = ("input_features", "attention_mask")

    feature_size: int = 80
    sampling_rate: int = 16000
    num_mel_bins: int = 80
    padding_value: float = 0.0
    stride: int = 2
    return_attention_mask: bool = True
    padding_side: str = "right"
    do_normalize_per_mel_bins: bool = True

    def __post_init__(self) -> None:
        self.check_counts("num_mel_bins", "stride", "sampling_rate")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as saved: the option of the call only where it differs from transformers."""
        values = super().to_dict()
        if self.do_normalize_per_mel_bins:
            del values["do_normalize_per_mel_bins"]
        return values

    def num_inputs(self, num_samples: Count) -> Count:
        """Return the number of whole groups of frames in these numbers of samples; below 0 for too few."""
        return num_mels(num_samples) // self.stride

    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return `input_features` (B, T, C) and `attention_mask` (B, T) on the device of the waveforms.

        Args:
            waves_BT: float32, zero from each row's end on.
            num_samples_B: Number of samples of each row. An incomplete last group of frames is masked.
        """
        most = max(0, num_mels(waves_BT.shape[1]))
        num_mels_B = num_mels(num_samples_B).clamp(0, most).to(waves_BT.device)
        mels_BMN = padded_log_mels(
            waves_BT,
            num_mels_B,
            self.num_mel_bins,
            self.sampling_rate,
            multiple=self.stride,
            padding=self.padding_value,
            is_normalised=self.do_normalize_per_mel_bins,
        )
        features = mels_BMN.view(len(mels_BMN), -1, self.stride * self.num_mel_bins)
        valid_BT = torch.arange(features.shape[1], device=features.device) < (num_mels_B // self.stride)[:, None]
        return {"input_features": features, "attention_mask": valid_BT}

    def __call__(
        self,
        raw_speech: Any,  # noqa: ANN401 - a waveform as array, tensor or list of floats, or a list of them
        padding: bool | str = True,
        pad_to_multiple_of: int | None = 2,
        max_length: int | None = None,
        truncation: bool = False,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
        return_attention_mask: bool | None = None,
        do_normalize_per_mel_bins: bool | None = None,
    ) -> BatchFeature:
        """Return features of one waveform or several; of (C, T) the first channel is used.

        Args:
            raw_speech: Samples in [-1, 1].
            padding: As for `pad`, in log-mel frames.
            pad_to_multiple_of: As for `pad`; if not a multiple of `stride`, frames are lost.
            max_length: As for `pad`, in log-mel frames.
            truncation: Cut at `max_length`.
            return_tensors: "pt", "np" or None (arrays).
            sampling_rate: Checked against the checkpoint's.
            return_attention_mask: None: the setting of the extractor.
            do_normalize_per_mel_bins: Whether each bin of a row has zero mean and unit variance. None: the setting of
                the extractor.
        """
        self.check_rate(sampling_rate)
        is_normalised = (
            self.do_normalize_per_mel_bins if do_normalize_per_mel_bins is None else do_normalize_per_mel_bins
        )
        mels = [self._mels(wave, is_normalised) for wave in waveforms_of(raw_speech, ("(T,)", "(B, T)", "(B, C, T)"))]
        padded = self.pad(
            {"input_features": mels},
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors="np",
        )
        whole = padded["input_features"].shape[1] // self.stride * self.stride
        shape = (len(mels), whole // self.stride, self.stride * self.num_mel_bins)
        features = padded["input_features"][:, :whole].reshape(shape)
        batch = BatchFeature({"input_features": features})
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            batch["attention_mask"] = padded["attention_mask"][:, 1 : whole : self.stride]
        return tensors_of(batch, return_tensors or "np")

    @torch.inference_mode()
    def _mels(self, wave: Any, is_normalised: bool) -> Array:  # noqa: ANN401 - as for the extractor
        samples = torch.as_tensor(np.asarray(wave, dtype=np.float32))
        if samples.ndim == 2:
            samples = samples[0]
        if samples.ndim != 1 or len(samples) < WINDOW_SAMPLES:
            raise ValueError(
                f"waveform has shape {tuple(samples.shape)!r}, expected (T,) or (C, T) with T of at least "
                f"{WINDOW_SAMPLES}"
            )
        mels = log_mels(samples[None], self.num_mel_bins, self.sampling_rate)
        if is_normalised:
            normalise(mels, torch.tensor([mels.shape[1]]), None)
        return mels[0].numpy()


class Wav2Vec2BertProcessor(Wav2Vec2Processor):
    """The feature extractor and the tokenizer of a Wav2Vec2-BERT checkpoint."""

    extractor_class = SeamlessM4TFeatureExtractor
