"""Processors of models that read log-mels: waveforms to pairs of log-mel frames, and that with a tokenizer.

`SeamlessM4TFeatureExtractor.extract` is the way of raysp's own steps: a batch at once, on whatever device the waveforms
are, each row as it is alone. Calling the extractor behaves as in transformers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.batches import BatchFeature, padded_length, tensors_of
from raysp.models.configuration import write_json
from raysp.models.hub import PROCESSOR_FILES, local_folder
from raysp.models.log_mels import WINDOW_SAMPLES, log_mels, normalised, num_mels
from raysp.models.processors import Wav2Vec2Processor, read_feature_extractor_config

Array = npt.NDArray[Any]


class SeamlessM4TFeatureExtractor:
    """Turn waveforms into normalised log-mel energies, `stride` neighbouring frames side by side."""

    model_input_names: ClassVar[tuple[str, ...]] = ("input_features", "attention_mask")

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        num_mel_bins: int = 80,
        padding_value: float = 0.0,
        stride: int = 2,
        return_attention_mask: bool = True,
        padding_side: str = "right",
    ) -> None:
        for name, value in (("num_mel_bins", num_mel_bins), ("stride", stride), ("sampling_rate", sampling_rate)):
            if type(value) is not int or value < 1:
                raise CheckpointError(f"{name} of the feature extractor is {value!r}, expected a number from 1")
        self.feature_size = feature_size
        self.sampling_rate = sampling_rate
        self.num_mel_bins = num_mel_bins
        self.padding_value = padding_value
        self.stride = stride
        self.return_attention_mask = return_attention_mask
        self.padding_side = padding_side

    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return `input_features` (B, T, C) and `attention_mask` (B, T) on the device of the waveforms.

        Args:
            waves_BT: float32, zero from each row's end on.
            num_samples_B: Where each row ends. A last group of frames that is not full is there, but not in the mask.
        """
        if waves_BT.shape[1] < WINDOW_SAMPLES:
            waves_BT = F.pad(waves_BT, (0, WINDOW_SAMPLES - waves_BT.shape[1]))
        mels = log_mels(waves_BT, self.num_mel_bins, self.sampling_rate)
        num_mels_B = num_mels(num_samples_B.to(waves_BT.device)).clamp(min=0)
        mels = normalised(mels, num_mels_B, self.padding_value)
        if mels.shape[1] % self.stride:
            mels = F.pad(mels, (0, 0, 0, -mels.shape[1] % self.stride), value=self.padding_value)
        features = mels.reshape(len(mels), mels.shape[1] // self.stride, self.stride * self.num_mel_bins)
        whole_B = num_mels_B // self.stride
        valid_BT = torch.arange(features.shape[1], device=mels.device) < whole_B[:, None]
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
        do_normalize_per_mel_bins: bool = True,
    ) -> BatchFeature:
        """Return features of one waveform or several; of (C, T) the first channel counts.

        Args:
            raw_speech: Samples in [-1, 1].
            padding: As for `pad`, in log-mel frames.
            pad_to_multiple_of: See `padding`; a multiple of `stride`, or frames are lost.
            max_length: See `padding`.
            truncation: Cut at `max_length`.
            return_tensors: "pt" or "np"; None gives arrays, too.
            sampling_rate: Checked against the checkpoint's.
            return_attention_mask: None: as the extractor says.
            do_normalize_per_mel_bins: Whether each bin of a row has zero mean and unit variance.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"sampling_rate is {sampling_rate!r}, this checkpoint expects {self.sampling_rate}")
        mels = [self._mels(wave, do_normalize_per_mel_bins) for wave in _waves(raw_speech)]
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
        features = padded["input_features"][:, :whole].reshape(len(mels), whole // self.stride, -1)
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
                f"waveform has shape {tuple(samples.shape)!r}, expected (T,) or (C, T), T from {WINDOW_SAMPLES}"
            )
        mels = log_mels(samples[None], self.num_mel_bins, self.sampling_rate)
        if is_normalised:
            mels = normalised(mels, torch.tensor([mels.shape[1]]))
        return mels[0].numpy()

    def pad(
        self,
        processed_features: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Bring `input_features` (T, C), and masks that come with them, to one length, as a collate function does."""
        if not isinstance(processed_features, Mapping):
            keys = processed_features[0].keys()
            processed_features = {key: [item[key] for item in processed_features] for key in keys}
        if truncation and max_length is None:
            raise ValueError("truncation=True without max_length: pass the length to cut at")
        rows = [np.asarray(row, dtype=np.float32) for row in processed_features["input_features"]]
        given = processed_features.get("attention_mask")
        masks = [np.asarray(mask, np.int32) for mask in given] if given is not None else [_ones(row) for row in rows]
        if truncation and max_length is not None:
            multiple = pad_to_multiple_of or 1
            most = -(-max_length // multiple) * multiple
            rows, masks = [row[:most] for row in rows], [mask[:most] for mask in masks]
        target = padded_length([len(row) for row in rows], padding, max_length, pad_to_multiple_of)
        batch = BatchFeature({"input_features": [self._padded(row, target, self.padding_value) for row in rows]})
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            batch["attention_mask"] = [self._padded(mask, target, 0) for mask in masks]
        return tensors_of(batch, return_tensors)

    def _padded(self, row: Array, target: int | None, value: float) -> Array:
        missing = max(0, (target or 0) - len(row))
        width = (0, missing) if self.padding_side == "right" else (missing, 0)
        return np.pad(row, [width, *[(0, 0)] * (row.ndim - 1)], constant_values=value) if missing else row

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they are saved."""
        return {**vars(self), "feature_extractor_type": type(self).__name__}

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        revision: str | None = None,
        **overrides: Any,  # noqa: ANN401 - arguments of __init__
    ) -> Self:
        """Read preprocessor_config.json, or processor_config.json, of a checkpoint folder or hub id."""
        values = read_feature_extractor_config(local_folder(folder, PROCESSOR_FILES, revision=revision))
        kind = values.get("feature_extractor_type", cls.__name__)
        if kind != cls.__name__:
            raise CheckpointError(f"{folder}: feature_extractor_type is {kind!r}, expected {cls.__name__!r}")
        names = vars(cls())
        return cls(**{**{name: value for name, value in values.items() if name in names}, **overrides})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json."""
        write_json(Path(folder) / "preprocessor_config.json", self.to_dict())


def _ones(row: Array) -> Array:
    return np.ones(len(row), np.int32)


def _waves(raw_speech: Any) -> list[Any]:  # noqa: ANN401 - as for the extractor
    """Return a list of waveforms, one or many given."""
    if isinstance(raw_speech, np.ndarray | Tensor):
        if raw_speech.ndim > 3:
            raise ValueError(f"waveforms have shape {tuple(raw_speech.shape)!r}, expected (T,), (B, T) or (B, C, T)")
        return [raw_speech] if raw_speech.ndim == 1 else list(raw_speech)
    many = len(raw_speech) > 0 and isinstance(raw_speech[0], np.ndarray | Tensor | list | tuple)
    return list(raw_speech) if many else [raw_speech]


class Wav2Vec2BertProcessor(Wav2Vec2Processor):
    """The feature extractor and the tokenizer of a Wav2Vec2-BERT checkpoint."""

    extractor_class = SeamlessM4TFeatureExtractor
