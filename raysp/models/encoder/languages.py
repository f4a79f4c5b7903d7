"""Languages of a checkpoint of many languages (MMS, Pratap et al. 2023): adapters and their exchange.

`adapter.<lang>.safetensors` holds every weight of the `adapter_layer` of each layer under its full name, and the
`lm_head` for the language's vocabulary. `model.safetensors` holds the adapter layers and the head of one language and
does not name it; the weights belong to the language whose file has equal values. To change the language of a loaded
model, only its adapter layers and head are exchanged.
"""

import logging
from collections import OrderedDict
from collections.abc import Collection
from enum import Enum, auto
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.checkpoints.contents import LANGUAGE, adapter_files, adapter_name
from raysp.checkpoints.hub import may_lack_languages, with_file
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config, short
from raysp.models.base.modeling import Model
from raysp.models.base.weights import read_header, read_pickle, read_safetensors, read_some, write_safetensors
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer

logger = logging.getLogger(__name__)

DEFAULT_LANG = "eng"


class AttnAdapterLayer(nn.Module):
    """A narrow residual network that adapts a layer to a language."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)  # epsilon is PyTorch's default, not config.layer_norm_eps
        self.linear_1 = nn.Linear(hidden_size, width)
        self.linear_2 = nn.Linear(width, hidden_size)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return the residual (B, T, H)."""
        adapted_BTH: Tensor = self.linear_2(F.relu(self.linear_1(self.norm(hidden_BTH))))
        return adapted_BTH


def adapter_file_names(lang: str, *, allow_pickle: bool) -> list[str]:
    """Return the possible file names of a language's weights, the preferred one first."""
    if not LANGUAGE.fullmatch(lang):
        raise ValueError(f"target_lang is {lang!r}, expected a language such as {DEFAULT_LANG!r}")
    return [f"adapter.{lang}.safetensors", *([f"adapter.{lang}.bin"] if allow_pickle else [])]


def is_of_language(name: str) -> bool:
    """Return whether a weight is specific to a language, by its name: adapter layers and CTC head."""
    return name.startswith("lm_head.") or ".adapter_layer." in name


def adapter_weights(model: Model) -> dict[str, Tensor]:
    """Return the weights specific to a language, of a model of raysp or transformers."""
    check_has_adapters(model)
    return {name: weight for name, weight in model.named_parameters() if is_of_language(name)}


def check_has_adapters(model: Model, lang: str | None = None) -> None:
    """Raise ValueError if the configuration has no adapters."""
    if getattr(model.config, "adapter_attn_dim", None) is None:
        request = "" if lang is None else f"target_lang {lang!r} requested, but "
        raise ValueError(f"{request}{type(model).__name__} has no adapter layers: set config.adapter_attn_dim")


def init_adapter_layers(model: Model) -> None:
    """Initialise adapter layers and the head at random, to train them alone."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, AttnAdapterLayer):
                for part in module.children():
                    model._init_module(part)
        head = getattr(model, "lm_head", None)
        if isinstance(head, nn.Linear):
            model._init_module(head)


def read_adapter(model: Model, path: Path) -> dict[str, Tensor]:
    """Read a language's weights, in the data types of the model and on its device.

    Raises:
        CheckpointError: Their names or shapes do not match the model.
    """
    tensors = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    expected = adapter_weights(model)
    unexpected, missing = sorted(tensors.keys() - expected.keys()), sorted(expected.keys() - tensors.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: weights do not match the model's adapters: missing {short(missing)}; unexpected "
            f"{short(unexpected)}: use an adapter made for this checkpoint"
        )
    for name, tensor in tensors.items():
        shape = expected[name].shape
        if tensor.shape[1:] != shape[1:] or (tensor.shape[:1] != shape[:1] and not name.startswith("lm_head.")):
            raise CheckpointError(
                f"{path}: {name} is {tuple(tensor.shape)!r}, expected {tuple(shape)!r}: "
                "use an adapter made for this checkpoint"
            )
    _check_head(tensors)
    return {  # copies, aligned in memory regardless of the place in the file
        name: torch.empty_like(value, dtype=expected[name].dtype, device=expected[name].device).copy_(value)
        for name, value in tensors.items()
    }


def exchange_adapter(model: Model, tensors: dict[str, Tensor]) -> None:
    """Set the adapter layers and the head of a model to a language's weights, of the model's device and data type.

    Nothing is copied: the model then holds these tensors.
    """
    for name, parameter in adapter_weights(model).items():
        # `.data`: the parameter stays the object that optimizers and wrappers of the model hold.
        parameter.data = tensors[name]
    head: nn.Linear = model.get_submodule("lm_head")  # type: ignore[assignment]
    any_config: Any = model.config
    any_config.vocab_size = head.out_features = len(head.weight)


def save_adapter(model: Model, lang: str, folder: Path) -> None:
    """Write a language's weights as `adapter.<lang>.safetensors`."""
    (name,) = adapter_file_names(lang, allow_pickle=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / name, adapter_weights(model))


def adapter_path(folder: Path, lang: str, allow_pickle: bool) -> Path:
    """Return the file of a language's weights."""
    names = adapter_file_names(lang, allow_pickle=allow_pickle)
    files = [folder / name for name in names if (folder / name).is_file()]
    if files:
        return files[0]
    languages = sorted(path.name.split(".")[1] for path in folder.glob("adapter.*.safetensors"))
    pickled = ""
    if (folder / f"adapter.{lang}.bin").is_file():
        command = f"raysp convert {folder} FOLDER"
        pickled = f"; its .bin is a pickle, read only with allow_pickle=True, and converted by `{command}`"
    raise CheckpointError(
        f"{folder}: {names[0]} not found{pickled}, expected one of the languages {short(languages)}: "
        "pass one of them or complete the checkpoint"
    )


def _check_head(tensors: dict[str, Tensor]) -> None:
    if "lm_head.weight" in tensors and len(tensors["lm_head.bias"]) != (size := len(tensors["lm_head.weight"])):
        raise CheckpointError(f"lm_head.bias of the adapter has {len(tensors['lm_head.bias'])} values, expected {size}")


HEAD = "lm_head.weight"
RELATIVE, ABSOLUTE = 1e-2, 1e-3
"""Tolerances between weights that were saved in different data types."""
MOST_KEPT = 32
"""Languages whose weights stay in memory: 9 MB each of a model of a billion parameters in float32."""


class Evidence(Enum):
    """Evidence in the files of a checkpoint for the language of its weights."""

    CONFIRMED = auto()
    """The file of the language has the same values."""
    REPLACED = auto()
    """The file of the language has other values, and the weights equal no other language's: the file is used."""
    UNCONFIRMED = auto()
    """The language has no file, and the weights equal no other language's."""


def tokenizer_adapter(folder: Path, languages: Collection[str], language: str) -> Path | None:
    """Return the adapter that replaces the weights of a checkpoint in the language of its tokenizer.

    Returns:
        The file; None if the weights have its values, or if there is none.

    Raises:
        CheckpointError: the weights belong to another language; see `compare_language`.
    """
    path = folder / adapter_name(language)
    weights = compare_language(folder, language, "tokenizer_config.json has target_lang")
    if weights is Evidence.REPLACED:
        logger.info("%s: adapter layers and head are read from %s, which differ from the weights", folder, path.name)
        return path
    if weights is Evidence.UNCONFIRMED and len(languages) > 1:
        pickle = folder / f"adapter.{language}.bin"
        why = f"{pickle.name} is a pickle, which is not read" if pickle.is_file() else "there is no such file"
        # On the hub or on storage the file may exist, but not be fetched: an output names another language.
        logger.log(
            logging.INFO if may_lack_languages(folder) else logging.WARNING,
            "%s: tokenizer_config.json has target_lang %r, one of %d languages of vocab.json, and nothing confirms "
            "that the weights are of this language: they are compared with %s, and %s",
            *(folder, language, len(languages), path.name, why),
        )
    return None


def compare_language(folder: Path, language: str, source: str) -> Evidence:
    """Compare the adapter layers and the head of a checkpoint with the files of languages.

    The file of the language is used where it has other values, as by `from_pretrained(..., target_lang=...)`.

    Args:
        folder: the checkpoint.
        language: the language.
        source: where it is set, for messages: such as "tokenizer_config.json has target_lang".

    Raises:
        CheckpointError: they belong to another language.
    """
    files = adapter_files(folder)
    own = files.pop(language, None)
    if own is not None and _holds(folder, own):
        return Evidence.CONFIRMED
    other = next((name for name, path in files.items() if _holds(folder, path)), None)
    if other is None:
        return Evidence.UNCONFIRMED if own is None else Evidence.REPLACED
    differs = "" if own is None else f" differ from {own.name} and"
    remedy = (
        f"add {adapter_name(language)} and write its weights into the checkpoint"
        if own is None
        else f"write the weights of {language!r} into the checkpoint (AutoModelForCTC.from_pretrained(folder, "
        f"target_lang={language!r}).save_pretrained(folder))"
    )
    raise CheckpointError(
        f"{folder}: {source} {language!r}, but adapter layers and head of the weights{differs} equal those of "
        f"{files[other].name}: set it to {other!r}, or {remedy}"
    )


def adapter_of(folder: Path, language: str, *, is_own: bool) -> Path | None:
    """Return the file of a language, fetched first if the checkpoint is on the hub.

    Args:
        folder: the checkpoint.
        language: the language.
        is_own: whether it is the announced language, whose weights the checkpoint holds without a file.

    Raises:
        CheckpointError: there is no such file.
        StoreError: it cannot be fetched.
    """
    path = with_file(folder, adapter_name(language))
    if path is None and not is_own:
        present = f"; it has the files of {short(adapter_files(folder))}"
        raise CheckpointError(
            f"{folder}: {adapter_name(language)} not found, expected the adapter layers and the head of this language"
            f"{present}: complete the checkpoint"
        )
    return path


def check_adapter(config: Config, path: Path) -> int:
    """Return the number of tokens of the head in the file of a language; no weights are read.

    Raises:
        CheckpointError: the model has no adapter layers, or the file has no head.
    """
    if getattr(config, "adapter_attn_dim", None) is None:
        raise CheckpointError(
            f"{path.parent}: {path.name} is for a model with adapter layers, and config.json has no adapter_attn_dim: "
            "use the config.json that was saved with this model"
        )
    head = next((header.shape for header in read_header(path) if header.name == HEAD), ())
    if len(head) != 2:
        raise CheckpointError(
            f"{path}: {HEAD} has the shape {head!r}, expected (tokens, width): copy the file again from its source"
        )
    return int(head[0])


def language_tokenizer(folder: Path, language: str) -> Wav2Vec2CTCTokenizer:
    """Return the tokenizer of a checkpoint with the vocabulary of a language."""
    return Wav2Vec2CTCTokenizer.from_pretrained(folder, target_lang=language)


class LanguageSwitch:
    """Languages of a model; the most recently used ones are kept in memory.

    Args:
        model: a model with adapter layers and a CTC head.
        folder: its checkpoint.
        own: language of the weights that it was loaded with; None: unknown.
    """

    def __init__(self, model: Model, folder: Path, own: str | None) -> None:
        self.model = model
        self.folder = folder
        self.own = own
        self.language: str | None = None
        """Language in use; None: the language of the loaded weights."""
        self._own_weights = {name: weight.detach() for name, weight in adapter_weights(model).items()}
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def use(self, language: str) -> None:
        """Switch adapter layers and head to a language.

        Raises:
            CheckpointError: the checkpoint has no file for it, or names or shapes in the file do not match the model.
            StoreError: the file cannot be fetched.
        """
        if language == self.language:
            return
        if language not in self._kept:
            path = adapter_of(self.folder, language, is_own=language == self.own)
            self._kept[language] = self._own_weights if path is None else read_adapter(self.model, path)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(language)
        exchange_adapter(self.model, self._kept[language])
        self.language = language


def _holds(folder: Path, adapter: Path) -> bool:
    """Return whether the weights of a checkpoint include an adapter's."""
    names = sorted(header.name for header in read_header(adapter))
    names.sort(key=lambda name: not name.startswith("lm_head."))  # most languages differ there
    for some in (names[:2], names[2:]):
        expected, actual = read_safetensors(adapter, some), read_some(folder, some)
        if not all(name in actual and _are_equal(actual[name], value) for name, value in expected.items()):
            return False
    return True


def _are_equal(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if first.dtype == second.dtype:
        return torch.equal(first, second)
    return torch.allclose(first.float(), second.float(), rtol=RELATIVE, atol=ABSOLUTE)
