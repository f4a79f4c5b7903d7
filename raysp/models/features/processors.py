"""Feature extractor and processor of waveform models.

`Wav2Vec2FeatureExtractor.extract` serves raysp's own steps: its values do not depend on the batch, and it runs on the
device of the waveforms. Calling the extractor behaves as in transformers, batch effects included.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.checkpoints.hub import PROCESSOR_FILES, Access, local_folder
from raysp.models.base.batches import BatchFeature, tensors_of
from raysp.models.base.modeling import Count
from raysp.models.features.extracting import PaddingExtractor, waveforms_of
from raysp.models.files.configuration import json_text, write_json
from raysp.models.files.sharing import Shareable
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer, read_tokenizer

__all__ = [
    "BatchFeature",
    "FeatureExtractor",
    "Wav2Vec2CTCTokenizer",
    "Wav2Vec2FeatureExtractor",
    "Wav2Vec2Processor",
]

AUDIO_ONLY = ("do_normalize_per_mel_bins", "sampling_rate")  # options of the feature extractor
TEXT_ONLY = ("is_split_into_words",)  # of the tokenizer

VARIANCE_FLOOR = 1e-7  # added to the variance, so that silence stays silence

Array = npt.NDArray[np.float32]


class FeatureExtractor(Protocol):
    """Conversion of waveforms to the inputs of a model."""

    sampling_rate: int

    def num_inputs(self, num_samples: Count) -> Count:
        """Return the length of a model's input, which its attention mask has too, for numbers of samples."""
        ...

    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return a model's arguments for a batch, on the device of the waveforms; rows do not depend on the batch."""
        ...

    def __call__(self, *args: Any, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Return a model's arguments for one waveform or several, as transformers does."""
        ...

    def pad(self, *args: Any, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Pad features to one length."""
        ...

    @property
    def model_input_names(self) -> Sequence[str]:
        """Names of the inputs of a model."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as saved."""
        ...

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **overrides: Any) -> Self:  # noqa: ANN401
        """Read the settings of a checkpoint folder."""
        ...

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write preprocessor_config.json."""
        ...


def _normalised_batch(waves_BT: Tensor, num_samples_B: Tensor) -> Tensor:
    """Return rows of zero mean and unit variance, zero from their ends on.

    Sums in float64: a row's float32 mean does not depend on the length of its padding.
    """
    valid_BT = torch.arange(waves_BT.shape[1], device=waves_BT.device) < num_samples_B[:, None]
    count_B1 = num_samples_B.clamp(min=1)[:, None].double()
    mean_B1 = waves_BT.sum(1, keepdim=True, dtype=torch.float64) / count_B1
    centred_BT = (waves_BT - mean_B1.float()).masked_fill(~valid_BT, 0.0)
    variance_B1 = centred_BT.square().sum(1, keepdim=True, dtype=torch.float64) / count_B1
    return centred_BT / (variance_B1 + VARIANCE_FLOOR).sqrt().float()


def _normalised_rows(waves_BT: Tensor, num_samples_B: Tensor) -> Tensor:
    """Return the normalised rows, one by one, which takes a third of the time on a CPU."""
    values_BT = torch.zeros_like(waves_BT)
    for values_T, wave_T, count in zip(values_BT, waves_BT, num_samples_B.tolist(), strict=True):
        mean = wave_T[:count].sum(dtype=torch.float64) / max(1, count)
        centred_T = torch.sub(wave_T[:count], mean.float(), out=values_T[:count])
        # Of the centred samples: with an offset of many deviations E[x^2] - E[x]^2 would cancel.
        variance = centred_T.square().sum(dtype=torch.float64) / max(1, count)
        centred_T.div_((variance + VARIANCE_FLOOR).sqrt().float())
    return values_BT


class Wav2Vec2FeatureExtractor(PaddingExtractor):
    """Normalises each waveform to zero mean and unit variance, and pads."""

    model_input_names: ClassVar[tuple[str, ...]] = ("input_values", "attention_mask")
    older_names: ClassVar[tuple[str, ...]] = ("Wav2Vec2Processor",)

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        return_attention_mask: bool = False,
        do_normalize: bool = True,
        padding_side: str = "right",
    ) -> None:
        self.feature_size = feature_size
        self.sampling_rate = sampling_rate
        self.padding_value = padding_value
        self.return_attention_mask = return_attention_mask
        self.do_normalize = do_normalize
        self.padding_side = padding_side

    def num_inputs(self, num_samples: Count) -> Count:
        """Return the number of inputs of a model for these numbers of samples."""
        return num_samples

    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return `input_values` and `attention_mask` (B, T) on the device of the waveforms.

        Args:
            waves_BT: float32, zero from each row's end on.
            num_samples_B: Number of samples of each row.
        """
        num_samples_B = num_samples_B.to(waves_BT.device)
        valid_BT = torch.arange(waves_BT.shape[1], device=waves_BT.device) < num_samples_B[:, None]
        values_BT = waves_BT
        if self.do_normalize:
            normalised = _normalised_rows if waves_BT.device.type == "cpu" else _normalised_batch
            values_BT = normalised(waves_BT, num_samples_B)
        if not self.do_normalize or self.padding_value:
            values_BT = values_BT.masked_fill(~valid_BT, self.padding_value)
        return {"input_values": values_BT, "attention_mask": valid_BT}

    def __call__(
        self,
        raw_speech: Any,  # noqa: ANN401 - a waveform as array or list of floats, or a list of them
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        """Normalise and pad one waveform or several.

        As in transformers, without an attention mask a padded waveform is normalised together with its padding, and so
        depends on its batch. `extract` does not.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"sampling_rate is {sampling_rate!r}, this checkpoint expects {self.sampling_rate}")
        waves = waveforms_of(raw_speech, ("(T,)", "(B, T)"))
        wants_mask = self.return_attention_mask if return_attention_mask is None else return_attention_mask
        batch = self.pad(
            {"input_values": waves},
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=wants_mask,
        )
        if self.do_normalize:
            is_padded = padding not in (False, "do_not_pad")
            masks = batch["attention_mask"] if wants_mask and is_padded else [None] * len(waves)
            batch["input_values"] = [
                self._normalised(wave, mask) for wave, mask in zip(batch["input_values"], masks, strict=True)
            ]
        return tensors_of(batch, return_tensors)

    def _normalised(self, wave: Array, mask: npt.NDArray[np.int32] | None) -> Array:
        if mask is None:
            mask = np.ones(len(wave), np.int32)
        # numpy's float32 sums, as in the original: `extract` differs from them in the last bits.
        spoken = wave[: int(mask.sum())]
        normalised: Array = (wave - spoken.mean()) / np.sqrt(spoken.var() + VARIANCE_FLOOR)
        normalised[len(spoken) :] = self.padding_value
        return normalised


class Wav2Vec2Processor(Shareable):
    """A feature extractor and the tokenizer of the same checkpoint: of a CTC head, or of a text decoder."""

    extractor_class: ClassVar[type[FeatureExtractor]] = Wav2Vec2FeatureExtractor

    def __init__(self, feature_extractor: FeatureExtractor, tokenizer: TextOrCTCTokenizer) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer

    def __call__(self, audio: Any = None, text: Any = None, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Process audio, text (into `input_ids`) or both (then the text's ids are `labels`).

        Options go to both parts, except those that only one part has.
        """
        if audio is None and text is None:
            raise ValueError("neither audio nor text given, expected at least one")
        for_text = {name: value for name, value in options.items() if name not in AUDIO_ONLY}
        if audio is None:
            return self.tokenizer(text, **for_text)
        batch = self.feature_extractor(audio, **{k: value for k, value in options.items() if k not in TEXT_ONLY})
        if text is not None:
            batch["labels"] = self.tokenizer(text, **for_text)["input_ids"]
        return batch

    def pad(self, input_features: Any = None, *, labels: Any = None, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Pad audio, labels, or both into one batch."""
        batch = None if input_features is None else self.feature_extractor.pad(input_features, **options)
        if labels is None:
            return BatchFeature() if batch is None else batch
        padded = self.tokenizer.pad(labels, **options)
        if batch is None:
            return padded
        batch["labels"] = padded["input_ids"]
        return batch

    @property
    def model_input_names(self) -> list[str]:
        """Names of the inputs of a model and of its labels."""
        return [*self.feature_extractor.model_input_names, "labels"]

    def as_target_processor(self) -> Any:  # noqa: ANN401 - never returns
        """Raise an error with the call that has taken its place in transformers 5 too.

        Raises:
            TypeError: Always.
        """
        raise TypeError("as_target_processor was replaced by a keyword: processor(text=texts), or text= beside audio")

    def decode(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer."""
        return self.tokenizer.decode(*args, **options)

    def batch_decode(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer."""
        return self.tokenizer.batch_decode(*args, **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        **overrides: Any,  # noqa: ANN401 - settings of either part
    ) -> Self:
        """Read both parts from a checkpoint folder or hub id; keyword arguments replace settings of either part."""
        access = Access.taken(overrides)
        overrides.setdefault("name_or_path", str(pretrained_model_name_or_path))
        folder = local_folder(pretrained_model_name_or_path, PROCESSOR_FILES, revision=revision, access=access)
        of_audio = cls.extractor_class.from_pretrained(folder).to_dict().keys() - {"padding_side"}
        for_audio = {name: overrides.pop(name) for name in [*overrides] if name in of_audio}
        extractor = cls.extractor_class.from_pretrained(folder, **for_audio)
        return cls(extractor, read_tokenizer(folder, **overrides))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of processor_config.json."""
        return {"feature_extractor": self.feature_extractor.to_dict(), "processor_class": type(self).__name__}

    def to_json_string(self) -> str:
        """Return the content of processor_config.json as JSON."""
        return json_text(self.to_dict())

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write the content of processor_config.json."""
        write_json(Path(json_file_path), self.to_dict())

    def _save(self, folder: Path) -> None:
        """Write both parts, in the formats of transformers before and after release 5."""
        self.feature_extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.to_json_file(folder / "processor_config.json")
