"""The base of model configurations, read and written as config.json, and the files of a checkpoint folder.

Importable without torch.
"""

import json
import logging
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Self

from raysp import bounds
from raysp.bounds import shortened
from raysp.checkpoints.access import Access
from raysp.checkpoints.contents import explanation
from raysp.checkpoints.hub import CONFIG_FILES, GENERATION_FILES, PROCESSOR_FILES, SPEAKER_FILES, local_folder
from raysp.errors import CheckpointError
from raysp.words import suggestion


def upload_saved(value: Any, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - anything with save_pretrained
    """Save a model, configuration or processor into a repository of the hub; options and result as for `upload`."""
    with TemporaryDirectory() as folder:
        value.save_pretrained(folder)
        return upload_folder(folder, repo_id, **options)


def upload_folder(folder: str | Path, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - options of `upload`
    """Upload the files of a folder; options and result as for `raysp.checkpoints.hub_api.upload`."""
    from raysp.checkpoints.hub_api import upload

    return upload(folder, repo_id, **options)


class Shareable(ABC):
    """A value that is read from a folder or the hub, and saves itself into a folder."""

    files: ClassVar[Sequence[str]] = PROCESSOR_FILES
    """Files of a checkpoint that the value is read from."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        **overrides: Any,  # noqa: ANN401 - of the class
    ) -> Self:
        """Read the value from a checkpoint folder or hub id; keyword arguments override its settings."""
        name, access = pretrained_model_name_or_path, Access.pop_from(overrides)
        folder = local_folder(name, cls.files, revision=revision, access=access)
        return cls._read(folder, str(name), overrides)

    @classmethod
    @abstractmethod
    def _read(cls, folder: Path, name: str, overrides: dict[str, Any]) -> Self:
        """Read the value from a folder, which has this name for users."""

    @abstractmethod
    def _save(self, folder: Path) -> None:
        """Write the files of the value."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        push_to_hub: bool = False,
        *,
        repo_id: str | None = None,
        **options: Any,  # noqa: ANN401 - options of `upload`
    ) -> None:
        """Write the files that transformers, before and after release 5, reads the value from.

        Args:
            save_directory: Folder, created if missing.
            push_to_hub: Upload the whole folder to the hub.
            repo_id: Repository; None: the folder's name.
            options: As for `push_to_hub`.
        """
        folder = Path(save_directory)
        if not push_to_hub and (repo_id is not None or options):
            raise TypeError(f"{', '.join(['repo_id', *options])} given without push_to_hub=True")
        self._save(folder)
        if push_to_hub:
            upload_folder(folder, repo_id or folder.resolve().name, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - options of `upload`
        """Save into a repository of the Hugging Face hub; options and result as for `upload`."""
        return upload_saved(self, repo_id, **options)


JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

logger = logging.getLogger(__name__)

SAME_BUT_FOR_A_LETTER = 0.93  # for names of ten letters or more; unrelated fields of checkpoints are less similar
READ_FROM = "_read_from"  # attribute that is not a value
NOT_FIELDS = {"is_encoder_decoder": False, "tokenizer_class": None, "_attn_implementation": "sdpa"}
"""Values of transformers that models without a decoder, and all models, have."""
MAX_FLOAT = 1e38  # below the largest float32


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint."""
    try:
        with path.open("rb") as file:
            value = bounds.parse_json(bounds.read(file, bounds.MOST_JSON_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found, expected a JSON file there: complete the checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}), expected a readable JSON file") from error
    except bounds.TooLargeError as error:
        raise CheckpointError(f"{path}: {error}: replace it") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}): copy the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds {type(value).__name__}, expected a JSON object: copy the file again")
    return value


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON object in the layout of Hugging Face libraries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text(value), encoding="utf-8")


def json_text(value: Mapping[str, object]) -> str:
    """Return a JSON object in the layout of Hugging Face libraries."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


class Config(Shareable):
    """A configuration: annotated class attributes are fields with defaults; other keys are stored unchanged.

    Models read values when they use them, so that assigning to `model.config` works.
    """

    files = CONFIG_FILES
    model_type: ClassVar[str] = ""
    default_labels: ClassVar[int] = 2
    """Default number of classes of a head."""

    architectures: list[str] | None = None
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    problem_type: str | None = None
    return_dict: bool = True

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - JSON, checked against the annotations
        values.pop("model_type", None)
        num_labels = values.pop("num_labels", None)
        if num_labels is not None and (type(num_labels) is not int or num_labels < 1):
            raise CheckpointError(f"num_labels is {shortened(num_labels)}, expected at least 1: correct config.json")
        _check_count("num_labels", num_labels, bounds.MOST_CLASSES)
        if "torch_dtype" in values:  # its name before transformers 5
            values.setdefault("dtype", values.pop("torch_dtype"))
        self.dtype = values.pop("dtype", None)
        hints = _field_types(type(self))
        for name in hints:
            setattr(self, name, values.pop(name, getattr(type(self), name)))
        for name, value in values.items():
            if close := suggestion(name, [*hints, "num_labels"], cutoff=SAME_BUT_FOR_A_LETTER):
                logger.warning("%s: no field %r%s: it is stored but has no effect", type(self).__name__, name, close)
            if not hasattr(type(self), name):  # a derived value, such as a property, is not stored
                setattr(self, name, value)
        for name, hint in hints.items():
            setattr(self, name, checked(f"{type(self).__name__}.{name}", getattr(self, name), hint))
            if name.endswith(COUNTS_OF_LAYERS):
                _check_count(name, getattr(self, name), bounds.MOST_LAYERS)
            if "drop" in name and not 0 <= (getattr(self, name) or 0) <= 1:
                raise CheckpointError(
                    f"{name} is {getattr(self, name)!r}, expected a probability from 0 to 1: correct config.json"
                )
        self.num_labels = self.num_labels if num_labels is None else num_labels
        if self.label2id is None and self.id2label is not None:
            self.label2id = {label: index for index, label in self.id2label.items()}
        self.validate()

    @property
    def name_or_path(self) -> str:
        """Folder or hub id that the configuration was read from; it is not part of the values."""
        return str(vars(self).get(READ_FROM, vars(self).get("_name_or_path", "")))

    @name_or_path.setter
    def name_or_path(self, value: str | Path) -> None:
        vars(self)[READ_FROM] = str(value)

    @property
    def dtype(self) -> Any:  # noqa: ANN401 - torch is imported only here
        """The data type of the weights, one of torch; None if it is not set. Files have its name."""
        name = vars(self)["dtype"]
        if name is None:
            return None
        import torch

        if not isinstance(value := getattr(torch, name, None), torch.dtype):
            raise CheckpointError(f"dtype is {name!r}, expected a data type of torch: correct config.json")
        return value

    @dtype.setter
    def dtype(self, value: object) -> None:
        """Assign a data type of torch, or its name."""
        vars(self)["dtype"] = None if value is None else str(value).removeprefix("torch.")

    @property
    def torch_dtype(self) -> Any:  # noqa: ANN401 - as `dtype`
        """Value of `dtype`, by its older name."""
        return self.dtype

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> bool | str | None:
            """Return the values of transformers that are not fields here; raise AttributeError for other names."""
            if name in NOT_FIELDS:
                return NOT_FIELDS[name]
            if name == "_name_or_path":
                return self.name_or_path
            close = suggestion(name, [*vars(self), *dir(type(self))])
            raise AttributeError(f"{type(self).__name__} has no {name!r}{close}")

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""

    @property
    def num_labels(self) -> int:
        """Number of classes of a classification head."""
        return self.default_labels if self.id2label is None else len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if self.num_labels != value or self.id2label is None:
            self.id2label = {index: f"LABEL_{index}" for index in range(value)}
            self.label2id = {label: index for index, label in self.id2label.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:  # noqa: ANN401
        """Make a configuration from the content of config.json; overriding `id2label` replaces `label2id` too."""
        if "id2label" in overrides:
            overrides = {"label2id": None, **overrides}
        return cls(**{**values, **overrides})

    @classmethod
    def _read(cls, folder: Path, name: str, overrides: dict[str, Any]) -> Self:
        path = folder / "config.json"
        if not path.is_file() and path.with_name("training_args.bin").is_file():
            raise CheckpointError(
                f"{path}: not found: the Trainer of transformers writes the weights of this model and no config.json: "
                "call model.save_pretrained(folder) after the training, or in a callback"
            )
        values = cls.own_values(read_json(path))
        model_type = values.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise CheckpointError(f"{path}: model_type is {model_type!r}, {cls.__name__} expects {cls.model_type!r}")
        try:
            made = cls.from_dict(values, **overrides)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        made.name_or_path = name
        return made

    @classmethod
    def own_values(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the part of a config.json that holds this configuration: all of it."""
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain JSON types, with `model_type`."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        values.pop(READ_FROM, None)
        return {**values, "model_type": self.model_type}

    def to_json_string(self) -> str:
        """Return the values as JSON."""
        return json_text(self.to_dict())

    def _save(self, folder: Path) -> None:
        """Write config.json, without common fields that have their default."""
        values, defaults = self.to_dict(), Config(num_labels=self.default_labels).to_dict()
        for name in (*_field_types(Config), "dtype"):
            if values[name] == defaults[name]:
                del values[name]
        write_json(folder / "config.json", values)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _compared(self) == _compared(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str)}"


def _compared(config: object) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if name != READ_FROM}


COUNTS_OF_LAYERS = ("layers", "n_layer", "conv_dim", "conv_kernel", "conv_stride", "tdnn_dim", "tdnn_kernel")
"""Ends of the names of fields by which modules are made, one by one."""


def _check_count(name: str, value: object, most: int) -> None:
    """Raise CheckpointError for a count, or a list, above `most` of modules that are made one by one."""
    count = len(value) if isinstance(value, list | tuple) else value
    if isinstance(count, int) and count > most:
        raise CheckpointError(f"{name} is {shortened(count)}, expected at most {most:,}: correct config.json")


def _field_types(cls: type[Config]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}


def checked(where: str, value: Any, hint: Any) -> Any:  # noqa: ANN401
    """Return a value of the annotated type; JSON integers are valid floats, lists become tuples."""
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        return _checked_union(where, value, hint)
    origin = typing.get_origin(hint)
    if origin in (tuple, list) and isinstance(value, list | tuple):
        inner = typing.get_args(hint)[0]
        return origin(checked(f"{where}[{index}]", item, inner) for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        key = typing.get_args(hint)[0]
        return {int(name) if key is int and str(name).isdigit() else name: item for name, item in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_FLOAT:
        return value
    if hint is float and isinstance(value, float):  # infinite or NaN
        raise CheckpointError(f"{where} is {value!r}, expected a finite number: correct config.json")
    if origin is None and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise CheckpointError(f"{where} is {value!r}, expected {getattr(hint, '__name__', hint)}: correct config.json")


def _checked_union(where: str, value: Any, hint: types.UnionType) -> Any:  # noqa: ANN401
    for option in typing.get_args(hint):
        try:
            return checked(where, value, option)
        except CheckpointError:
            continue
    raise CheckpointError(f"{where} is {value!r}, expected {hint}: correct config.json")


SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX_FILE = "pytorch_model.bin.index.json"
LABEL_FILES = (*PROCESSOR_FILES, *GENERATION_FILES, *SPEAKER_FILES)


def checkpoint_files(folder: str | Path) -> list[Path]:
    """Return the files that affect labels: configuration, weights, processor, tokenizer."""
    folder = Path(folder)
    return sorted([*weight_files(folder), *(folder / name for name in LABEL_FILES if (folder / name).is_file())])


def weight_files(folder: Path, *, allow_pickle: bool = False) -> list[Path]:
    """Return the weight files of a checkpoint: one, or the files of its index; pickles only if nothing else exists."""
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        return _indexed_files(folder / INDEX_FILE)
    if allow_pickle and (folder / PICKLE_FILE).is_file():
        return [folder / PICKLE_FILE]
    if allow_pickle and (folder / PICKLE_INDEX_FILE).is_file():
        return _indexed_files(folder / PICKLE_INDEX_FILE)
    there = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    raise CheckpointError(f"{folder}: {explanation(str(folder), there)}")


def _indexed_files(index: Path) -> list[Path]:
    suffix, kind = (".bin", "pickle") if index.name == PICKLE_INDEX_FILE else (".safetensors", "safetensors")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: weight_map is {weight_map!r}, expected names of weights with their files")
    files = []
    for name in sorted({str(value) for value in weight_map.values()}):
        path = index.parent / name
        if name != Path(name).name or not name.endswith(suffix):
            raise CheckpointError(f"{index}: lists {name!r}, expected a {kind} file in the same folder")
        if not path.is_file():
            raise CheckpointError(
                f"{index.parent}: {name!r} not found though {index.name} lists it: complete the checkpoint"
            )
        files.append(path)
    return files


SHOWN_NAMES = 8


def short(names: Iterable[str]) -> str:
    """Join names; of a long list, the first few and the count."""
    listed = list(names)
    if not listed:
        return "none"
    rest = len(listed) - SHOWN_NAMES
    return ", ".join(listed[:SHOWN_NAMES]) + (f" and {rest} more ({len(listed)} in all)" if rest > 0 else "")
