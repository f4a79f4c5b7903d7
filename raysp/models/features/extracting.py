"""The base of feature extractors: settings in a checkpoint folder, and padding of rows to one length."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from raysp.checkpoints.hub import KEYWORDS, PROCESSOR_FILES, Access, local_folder
from raysp.errors import CheckpointError
from raysp.models.base.batches import BatchFeature, padded_length, tensors_of, warn_of_missing_mask
from raysp.models.files.configuration import MAX_FLOAT, json_text, read_json, suggestion, write_json
from raysp.models.files.sharing import Shareable

Array = npt.NDArray[Any]


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


class PaddingExtractor(Shareable):
    """A feature extractor with its settings as attributes; its features are float32 rows (T,) or (T, C)."""

    model_input_names: ClassVar[tuple[str, ...]]
    """Names of the rows and of their mask."""
    older_names: ClassVar[tuple[str, ...]] = ()
    """Other names of this class in checkpoints."""
    padding_value: float
    padding_side: str
    return_attention_mask: bool

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
        """Pad rows, and masks given with them, to one length."""
        if not isinstance(processed_features, Mapping):
            keys = processed_features[0].keys()
            processed_features = {key: [item[key] for item in processed_features] for key in keys}
        if truncation and max_length is None:
            raise ValueError("truncation=True without max_length: pass the length to cut at")
        name = self.model_input_names[0]
        rows = [np.asarray(row, dtype=np.float32) for row in processed_features[name]]
        given = processed_features.get("attention_mask")
        masks = (
            [np.ones(len(row), np.int32) for row in rows]
            if given is None
            else [np.asarray(mask, np.int32) for mask in given]
        )
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

    def _padded(self, row: Array, target: int | None, value: float) -> Array:
        missing = max(0, (target or 0) - len(row))
        width = (0, missing) if self.padding_side == "right" else (missing, 0)
        return np.pad(row, [width, *[(0, 0)] * (row.ndim - 1)], constant_values=value) if missing else row

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as saved."""
        return {**vars(self), "feature_extractor_type": type(self).__name__}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        **overrides: Any,  # noqa: ANN401 - arguments of __init__
    ) -> Self:
        """Read preprocessor_config.json, or processor_config.json, of a checkpoint folder or hub id."""
        access = Access.taken(overrides)
        folder = local_folder(pretrained_model_name_or_path, PROCESSOR_FILES, revision=revision, access=access)
        values = read_feature_extractor_config(folder)
        kind = values.get("feature_extractor_type", cls.__name__)
        if kind not in (cls.__name__, *cls.older_names):
            raise CheckpointError(f"{folder}: feature_extractor_type is {kind!r}, expected {cls.__name__!r}")
        return cls._of(values, overrides, folder)

    @classmethod
    def _of(cls, values: Mapping[str, Any], overrides: Mapping[str, Any], where: str | Path) -> Self:
        """Make an extractor from settings of a file, and those that replace them."""
        defaults = vars(cls())
        if unknown := [name for name in overrides if name not in defaults]:
            named = ", ".join(f"{name!r}{suggestion(name, [*defaults, *KEYWORDS])}" for name in unknown)
            raise TypeError(f"{named}: no setting of {cls.__name__}, which has {', '.join(defaults)}")
        known = {**{name: value for name, value in values.items() if name in defaults}, **overrides}
        for name, value in known.items():
            if not _is_like(value, defaults[name]):
                raise CheckpointError(
                    f"{where}: {name} of the feature extractor is {value!r}, expected a value such as "
                    f"{defaults[name]!r}: correct preprocessor_config.json or processor_config.json"
                )
            if isinstance(defaults[name], float):
                known[name] = float(value)
        return cls(**known)

    @classmethod
    def from_dict(cls, feature_extractor_dict: Mapping[str, Any], **overrides: Any) -> Self:  # noqa: ANN401
        """Make an extractor from the content of preprocessor_config.json, with some values replaced."""
        return cls._of(feature_extractor_dict, overrides, cls.__name__)

    @property
    def feature_extractor_type(self) -> str:
        """Name of the class."""
        return type(self).__name__

    def to_json_string(self) -> str:
        """Return the settings as JSON, as saved."""
        return json_text(self.to_dict())

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write the settings as JSON."""
        write_json(Path(json_file_path), self.to_dict())

    def _save(self, folder: Path) -> None:
        """Write preprocessor_config.json."""
        self.to_json_file(folder / "preprocessor_config.json")


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
