"""Processors of waveform models: waveforms to `input_values`, and the pair of that with a tokenizer.

`Wav2Vec2FeatureExtractor.extract` is the way of raysp's own steps: the same values for a row whatever shares its batch,
on whatever device the waveforms are. Calling the extractor behaves as in transformers, batch effects included.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.batches import BatchFeature, padded_length, tensors_of
from raysp.models.configuration import read_json, write_json
from raysp.models.hub import PROCESSOR_FILES, local_folder
from raysp.models.tokenization import Wav2Vec2CTCTokenizer

if TYPE_CHECKING:
    from raysp.models.text_tokenization import TextTokenizer

TextOrCTCTokenizer: TypeAlias = "Wav2Vec2CTCTokenizer | TextTokenizer"

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


def read_feature_extractor_config(folder: Path) -> dict[str, Any]:
    """Return what preprocessor_config.json holds, or else the part of processor_config.json that replaced it.

    Raises:
        CheckpointError: Neither is there, or both are and disagree.
    """
    old, new = folder / "preprocessor_config.json", folder / "processor_config.json"
    nested = read_json(new).get("feature_extractor") if new.is_file() else None
    if nested is not None and not isinstance(nested, dict):
        raise CheckpointError(f"{new}: feature_extractor is {nested!r}, expected an object: save the processor again")
    if not old.is_file():
        if nested is None:
            raise CheckpointError(
                f"{folder}: neither {old.name} nor a feature_extractor in {new.name} found, which say the sampling "
                "rate and whether waveforms are normalised: copy the file from the checkpoint's source"
            )
        return nested
    values = read_json(old)
    if nested is not None:
        differing = {key: (values[key], nested[key]) for key in values if key in nested and values[key] != nested[key]}
        if differing:
            raise CheckpointError(f"{folder}: {old.name} and {new.name} disagree: {differing!r}: remove the wrong one")
    return values


class FeatureExtractor(Protocol):
    """What stands before a model: waveforms to its inputs."""

    sampling_rate: int

    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return a model's arguments for a batch, each row as it is alone, on the device of the waveforms."""
        ...

    def __call__(self, *args: Any, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Return a model's arguments for one waveform or several, as transformers does."""
        ...

    def pad(self, *args: Any, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Bring features to one length, as a collate function does."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they are saved."""
        ...

    @classmethod
    def from_pretrained(cls, folder: str | Path, **overrides: Any) -> Self:  # noqa: ANN401
        """Read the settings of a checkpoint folder."""
        ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json."""
        ...


class Wav2Vec2FeatureExtractor:
    """Bring waveforms to zero mean and unit variance, each by itself, and pad them."""

    model_input_names: ClassVar[tuple[str, ...]] = ("input_values", "attention_mask")

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

    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return `input_values` and `attention_mask` (B, T) on the device of the waveforms.

        Args:
            waves_BT: float32, zero from each row's end on.
            num_samples_B: Where each row ends.
        """
        num_samples_B = num_samples_B.to(waves_BT.device)
        valid_BT = torch.arange(waves_BT.shape[1], device=waves_BT.device) < num_samples_B[:, None]
        values_BT = waves_BT
        if self.do_normalize:
            # Sums in float64: a row's mean is then the same to the last bit of float32 however long its padding is.
            count_B1 = num_samples_B.clamp(min=1)[:, None].double()
            mean_B1 = waves_BT.sum(1, keepdim=True, dtype=torch.float64) / count_B1
            centred_BT = waves_BT - mean_B1.float()
            squares_BT = centred_BT.square().masked_fill(~valid_BT, 0.0)
            variance_B1 = squares_BT.sum(1, keepdim=True, dtype=torch.float64) / count_B1
            values_BT = centred_BT / (variance_B1 + VARIANCE_FLOOR).sqrt().float()
        return {"input_values": values_BT.masked_fill(~valid_BT, self.padding_value), "attention_mask": valid_BT}

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
        depends on its batch; `extract` does not.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"sampling_rate is {sampling_rate!r}, this checkpoint expects {self.sampling_rate}")
        waves = _waves(raw_speech)
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
        spoken = wave[: int(mask.sum())]
        normalised: Array = (wave - spoken.mean()) / np.sqrt(spoken.var() + VARIANCE_FLOOR)
        normalised[len(spoken) :] = self.padding_value
        return normalised

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
        """Bring `input_values` to one length, as a collate function does."""
        if not isinstance(processed_features, Mapping):
            keys = processed_features[0].keys()
            processed_features = {key: [item[key] for item in processed_features] for key in keys}
        if truncation and max_length is None:
            raise ValueError("truncation=True without max_length: pass the length to cut at")
        waves = [np.asarray(wave, dtype=np.float32) for wave in processed_features["input_values"]]
        if truncation and max_length is not None:
            multiple = pad_to_multiple_of or 1
            waves = [wave[: -(-max_length // multiple) * multiple] for wave in waves]
        target = padded_length([len(wave) for wave in waves], padding, max_length, pad_to_multiple_of)
        batch = BatchFeature({"input_values": [self._padded(wave, target, self.padding_value) for wave in waves]})
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            ones = [np.ones(len(wave), np.int32) for wave in waves]
            batch["attention_mask"] = [self._padded(mask, target, 0) for mask in ones]
        return tensors_of(batch, return_tensors)

    def _padded(self, row: npt.NDArray[Any], target: int | None, value: float) -> npt.NDArray[Any]:
        missing = max(0, (target or 0) - len(row))
        width = (0, missing) if self.padding_side == "right" else (missing, 0)
        return np.pad(row, width, constant_values=value) if missing else row

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
        folder = local_folder(folder, PROCESSOR_FILES, revision=revision)
        values = read_feature_extractor_config(folder)
        kind = values.get("feature_extractor_type", cls.__name__)
        if kind not in (cls.__name__, "Wav2Vec2Processor"):
            raise CheckpointError(f"{folder}: feature_extractor_type is {kind!r}, expected {cls.__name__!r}")
        names = vars(cls())
        return cls(**{**{name: value for name, value in values.items() if name in names}, **overrides})

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json."""
        write_json(Path(folder) / "preprocessor_config.json", self.to_dict())


def _waves(raw_speech: Any) -> list[Any]:  # noqa: ANN401 - as for the extractor
    """Return a list of waveforms, one or many given."""
    if isinstance(raw_speech, np.ndarray | Tensor):
        if raw_speech.ndim > 2:
            raise ValueError(f"waveforms have shape {tuple(raw_speech.shape)!r}, expected one channel: (B, T) or (T,)")
        return [raw_speech] if raw_speech.ndim == 1 else list(raw_speech)
    many = len(raw_speech) > 0 and isinstance(raw_speech[0], np.ndarray | Tensor | list | tuple)
    return list(raw_speech) if many else [raw_speech]


def read_tokenizer(folder: str | Path, **overrides: Any) -> "TextOrCTCTokenizer":  # noqa: ANN401
    """Read the tokenizer that a checkpoint names: of a CTC head, or of a text decoder.

    Where none is named it is that of the text decoder, if there is one.
    """
    from raysp.models.text_tokenization import TextTokenizer, names_text_tokenizer

    if names_text_tokenizer(Path(folder)):
        return TextTokenizer.from_pretrained(folder, **overrides)
    return Wav2Vec2CTCTokenizer.from_pretrained(folder, **overrides)


class Wav2Vec2Processor:
    """A feature extractor and the tokenizer of the same checkpoint: of a CTC head, or of a text decoder."""

    extractor_class: ClassVar[type[FeatureExtractor]] = Wav2Vec2FeatureExtractor

    def __init__(self, feature_extractor: FeatureExtractor, tokenizer: "TextOrCTCTokenizer") -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer

    def __call__(self, audio: Any = None, text: Any = None, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Process audio, text (into `input_ids`) or both (then the text's ids are `labels`).

        Options go to both parts, but for those that one of them alone knows.
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

    def decode(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer."""
        return self.tokenizer.decode(*args, **options)

    def batch_decode(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer."""
        return self.tokenizer.batch_decode(*args, **options)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, revision: str | None = None) -> Self:
        """Read both parts from a checkpoint folder or hub id."""
        folder = local_folder(folder, PROCESSOR_FILES, revision=revision)
        return cls(cls.extractor_class.from_pretrained(folder), read_tokenizer(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write both parts, so that transformers before and after release 5 read them."""
        self.feature_extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        nested = {"feature_extractor": self.feature_extractor.to_dict(), "processor_class": type(self).__name__}
        write_json(Path(folder) / "processor_config.json", nested)
