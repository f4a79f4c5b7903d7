"""Feature extractor and processor of waveform models, and the base of all feature extractors.

`Wav2Vec2FeatureExtractor.extract` serves raysp's own steps: its values do not depend on the batch, and it runs on the
device of the waveforms. Calling the extractor behaves as in transformers, batch effects included.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.checkpoints.access import KEYWORDS
from raysp.crossing import Room, Sending
from raysp.errors import CheckpointError
from raysp.models.base.batches import BatchFeature, padded_length, tensors_of, warn_of_missing_mask
from raysp.models.base.configuration import MAX_FLOAT, Shareable, json_text, read_json, write_json
from raysp.models.base.row_layout import Count
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer, read_tokenizer
from raysp.words import suggestion


def read_feature_extractor_config(folder: Path) -> dict[str, Any]:
    """Return the content of preprocessor_config.json, or else of `feature_extractor` in processor_config.json.

    Raises:
        CheckpointError: Neither exists, or they disagree.
    """
    old, new = folder / "preprocessor_config.json", folder / "processor_config.json"
    nested = read_json(new).get("feature_extractor") if new.is_file() else None
    if nested is not None and not isinstance(nested, dict):
        raise CheckpointError(f"{new}: feature_extractor is {nested!r}, expected an object: save the processor again")
    if not old.is_file():
        if nested is None:
            raise CheckpointError(
                f"{folder}: neither {old.name} nor a feature_extractor in {new.name} found, which hold the sampling "
                "rate and the normalisation of waveforms: copy the file from the checkpoint's source"
            )
        return nested
    values = read_json(old)
    if nested is not None:
        differing = {key: (values[key], nested[key]) for key in values if key in nested and values[key] != nested[key]}
        if differing:
            raise CheckpointError(f"{folder}: {old.name} and {new.name} differ: {differing!r}: remove the wrong one")
    return values


class FeatureExtractor(Shareable):
    """Conversion of waveforms to inputs of a model, float32 rows (T,) or (T, C), with its settings as attributes."""

    model_input_names: ClassVar[tuple[str, ...]]
    """Names of the rows and of their mask."""
    older_names: ClassVar[tuple[str, ...]] = ()
    """Other names of this class in checkpoints."""
    sampling_rate: int
    padding_value: float
    padding_side: str
    return_attention_mask: bool

    @abstractmethod
    def num_inputs(self, num_samples: Count) -> Count:
        """Return the length of a model's input, which its attention mask has too, for numbers of samples."""

    @abstractmethod
    def extract(self, waves_BT: Tensor, num_samples_B: Tensor) -> dict[str, Tensor]:
        """Return a model's arguments for a batch, on the device of the waveforms; rows do not depend on the batch."""

    @abstractmethod
    def __call__(self, *args: Any, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Return a model's arguments for one waveform or several, as transformers does."""

    def check_counts(self, *names: str) -> None:
        """Refuse settings that are not numbers of at least 1."""
        for name in names:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise CheckpointError(f"{name} of the feature extractor is {value!r}, expected a number of at least 1")

    def check_rate(self, sampling_rate: int | None) -> None:
        """Refuse waveforms of another rate than the checkpoint's."""
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"sampling_rate is {sampling_rate!r}, this checkpoint expects {self.sampling_rate}")

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
        """Pad rows and their masks to one length."""
        if not isinstance(processed_features, Mapping):
            keys = processed_features[0].keys()
            processed_features = {key: [item[key] for item in processed_features] for key in keys}
        if truncation and max_length is None:
            raise ValueError("truncation=True without max_length: pass the length to cut at")
        name = self.model_input_names[0]
        rows = [np.asarray(row, dtype=np.float32) for row in processed_features[name]]
        masks = processed_features.get("attention_mask")
        masks = [np.ones(len(row)) for row in rows] if masks is None else masks
        masks = [np.asarray(mask, np.int32) for mask in masks]
        if truncation and max_length is not None:
            multiple = pad_to_multiple_of or 1
            most = -(-max_length // multiple) * multiple
            rows, masks = [row[:most] for row in rows], [mask[:most] for mask in masks]
        target = padded_length([len(row) for row in rows], padding, max_length, pad_to_multiple_of)
        batch = BatchFeature({name: [self._padded(row, target, self.padding_value) for row in rows]})
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            batch["attention_mask"] = [self._padded(mask, target, 0) for mask in masks]
        elif target is not None and len({int(mask.sum()) for mask in masks}) > 1:
            warn_of_missing_mask()
        return tensors_of(batch, return_tensors)

    def _padded(self, row: npt.NDArray[Any], target: int | None, value: float) -> npt.NDArray[Any]:
        missing = max(0, (target or 0) - len(row))
        width = (0, missing) if self.padding_side == "right" else (missing, 0)
        return np.pad(row, [width, *[(0, 0)] * (row.ndim - 1)], constant_values=value) if missing else row

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as saved."""
        return {**vars(self), "feature_extractor_type": type(self).__name__}

    @classmethod
    def _read(cls, folder: Path, name: str, overrides: dict[str, Any]) -> Self:
        values = read_feature_extractor_config(folder)
        kind = values.get("feature_extractor_type", cls.__name__)
        if kind not in (cls.__name__, *cls.older_names):
            raise CheckpointError(f"{folder}: feature_extractor_type is {kind!r}, expected {cls.__name__!r}")
        return cls.of_settings(values, folder, **overrides)

    @classmethod
    def of_settings(cls, values: Mapping[str, Any], where: str | Path = "settings", **overrides: Any) -> Self:  # noqa: ANN401
        """Make an extractor from settings of a file, or of an extractor of transformers, and overrides."""
        defaults = vars(cls())
        if unknown := [name for name in overrides if name not in defaults]:
            named = ", ".join(f"{name!r}{suggestion(name, [*defaults, *KEYWORDS])}" for name in unknown)
            raise TypeError(f"{named}: no setting of {cls.__name__}, which has {', '.join(defaults)}")
        settings = {**{name: value for name, value in values.items() if name in defaults}, **overrides}
        for name, value in settings.items():
            if not _is_like(value, defaults[name]):
                raise CheckpointError(
                    f"{where}: {name} of the feature extractor is {value!r}, expected a value such as "
                    f"{defaults[name]!r}: correct preprocessor_config.json or processor_config.json"
                )
            if isinstance(defaults[name], float):
                settings[name] = float(value)
        return cls(**settings)

    def to_json_string(self) -> str:
        """Return the settings as JSON, as saved."""
        return json_text(self.to_dict())

    def _save(self, folder: Path) -> None:
        """Write preprocessor_config.json."""
        write_json(folder / "preprocessor_config.json", self.to_dict())


def _is_like(value: object, default: object) -> bool:
    """Return whether a setting has the type of its default; an int is a valid float."""
    if isinstance(default, bool):
        return value is None or isinstance(value, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_FLOAT
    return isinstance(value, int) and not isinstance(value, bool)


def waveforms_of(raw_speech: Any, shapes: Sequence[str]) -> list[Any]:  # noqa: ANN401 - as for an extractor
    """Return a list of waveforms from one or many; `shapes` are the valid shapes of an array, by axes."""
    if isinstance(raw_speech, np.ndarray | Tensor):
        if raw_speech.ndim > len(shapes):
            raise ValueError(f"waveforms have shape {tuple(raw_speech.shape)!r}, expected {' or '.join(shapes)}")
        return [raw_speech] if raw_speech.ndim == 1 else list(raw_speech)
    many = len(raw_speech) > 0 and isinstance(raw_speech[0], np.ndarray | Tensor | list | tuple)
    return list(raw_speech) if many else [raw_speech]


AUDIO_ONLY = ("do_normalize_per_mel_bins", "sampling_rate")  # options of the feature extractor
TEXT_ONLY = ("is_split_into_words",)  # of the tokenizer

VARIANCE_FLOOR = 1e-7  # added to the variance, so that silence stays silence

Array = npt.NDArray[np.float32]


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


@dataclass(eq=False)
class Wav2Vec2FeatureExtractor(FeatureExtractor):
    """Normalises each waveform to zero mean and unit variance, and pads."""

    model_input_names: ClassVar[tuple[str, ...]] = ("input_values", "attention_mask")
    older_names: ClassVar[tuple[str, ...]] = ("Wav2Vec2Processor",)

    feature_size: int = 1
    sampling_rate: int = 16000
    padding_value: float = 0.0
    return_attention_mask: bool = False
    do_normalize: bool = True
    padding_side: str = "right"

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
        self.check_rate(sampling_rate)
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
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Options of a call for both parts."""

    def __init__(self, feature_extractor: FeatureExtractor, tokenizer: TextOrCTCTokenizer) -> None:
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer

    def __call__(self, audio: Any = None, text: Any = None, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Process audio, text (into `input_ids`) or both (then the text's ids are `labels`).

        Options, also in `common_kwargs`, go to both parts, except options that only one part has; `audio_kwargs` and
        `text_kwargs` go to one.
        """
        if audio is None and text is None:
            raise ValueError("neither audio nor text given, expected at least one")
        of_audio, of_text, shared = (options.pop(f"{name}_kwargs", {}) for name in ("audio", "text", "common"))
        options = dict(**options, **shared)
        for_text = {k: value for k, value in options.items() if k not in AUDIO_ONLY}
        for_text = {**self.defaults, **dict(**for_text, **of_text)}
        if audio is None:
            return self.tokenizer(text, **for_text)
        for_audio = {k: value for k, value in options.items() if k not in TEXT_ONLY}
        batch = self.feature_extractor(audio, **{**self.defaults, **dict(**for_audio, **of_audio)})
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

    def decode(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer."""
        return self.tokenizer.decode(*args, **options)

    def batch_decode(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as the tokenizer
        """Decode by the tokenizer."""
        return self.tokenizer.batch_decode(*args, **options)

    @classmethod
    def _read(cls, folder: Path, name: str, overrides: dict[str, Any]) -> Self:
        overrides.setdefault("name_or_path", name)
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

    def _save(self, folder: Path) -> None:
        """Write both parts, in the formats of transformers before and after release 5."""
        self.feature_extractor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_json(folder / "processor_config.json", self.to_dict())


def pad(waves: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Pad waveforms of one dtype to one length.

    Returns:
        Samples of shape (B, S), zero after the end, and the number of samples of each, int64 of shape (B,).
    """
    waves_BS, num_samples_B = fill(waves, torch.device("cpu")).tensors()
    return waves_BS, num_samples_B


def fill(waves: Sequence[np.ndarray], device: torch.device, room: Room | None = None) -> Sending:
    """Return the samples and their numbers as `pad`, ready to be sent to a device, in `room` if there is one."""
    longest = max(map(len, waves), default=0)
    padded = Sending(device, (waves[0].dtype, (len(waves), longest)), (np.int64, (len(waves),)), room=room)
    waves_BS, num_samples_B = padded.arrays
    num_samples_B[:] = [len(wave) for wave in waves]
    for row, wave in zip(waves_BS, waves, strict=True):
        row[: len(wave)] = wave
        if not padded.is_zero:
            row[len(wave) :] = 0
    return padded


def as_float(waves: Tensor) -> Tensor:
    """Return int16 samples as float32 in [-1, 1), exactly as a decoder does; float samples unchanged."""
    return waves.float() / 32768 if waves.dtype == torch.int16 else waves
