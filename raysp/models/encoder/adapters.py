"""Language adapters of CTC models (MMS, Pratap et al. 2023): a small file of weights for each language.

`adapter.<lang>.safetensors` holds every weight of the `adapter_layer` of each layer under its full name, and the
`lm_head` for the language's vocabulary.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.checkpoints.language_adapters import LANGUAGE
from raysp.errors import CheckpointError
from raysp.models.base.modeling import Model
from raysp.models.files.comparison import short
from raysp.models.files.weights import read_pickle, read_safetensors, write_safetensors

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


def adapter_weights(model: Model) -> dict[str, Tensor]:
    """Return the weights specific to a language: those of adapter layers and of the CTC head."""
    check_has_adapters(model)
    modules: dict[str, nn.Module] = {
        name: module for name, module in model.named_modules() if isinstance(module, AttnAdapterLayer)
    }
    head = getattr(model, "lm_head", None)
    if isinstance(head, nn.Linear):
        modules["lm_head"] = head
    return {f"{name}.{part}": weight for name, module in modules.items() for part, weight in module.named_parameters()}


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


def load_adapter(model: Model, lang: str, folder: Path, *, allow_pickle: bool = False) -> None:
    """Load a language's weights into a model and set its head and `config.vocab_size` to the language's vocabulary.

    Raises:
        ValueError: The model has no adapters.
        CheckpointError: The file is missing, or its names or shapes do not match the model.
    """
    check_has_adapters(model, lang)
    tensors = read_adapter(model, _adapter_path(folder, lang, allow_pickle))
    _resize_head(model, tensors)
    places = adapter_weights(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            places[name].copy_(tensor)


def read_adapter(model: Model, path: Path) -> dict[str, Tensor]:
    """Read a language's weights.

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
    return tensors


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


def _adapter_path(folder: Path, lang: str, allow_pickle: bool) -> Path:
    names = adapter_file_names(lang, allow_pickle=allow_pickle)
    found = [folder / name for name in names if (folder / name).is_file()]
    if found:
        return found[0]
    others = sorted(path.name.split(".")[1] for path in folder.glob("adapter.*.safetensors"))
    pickled = ""
    if _has_pickle(folder, lang):
        command = f"raysp convert {folder} FOLDER"
        pickled = f"; its .bin is a pickle, read only with allow_pickle=True, and converted by `{command}`"
    raise CheckpointError(
        f"{folder}: {names[0]} not found{pickled}, expected one of the languages {short(others)}: "
        "pass one of them or complete the checkpoint"
    )


def _has_pickle(folder: Path, lang: str) -> bool:
    return (folder / f"adapter.{lang}.bin").is_file()


def _resize_head(model: Model, tensors: dict[str, Tensor]) -> None:
    """Replace the head by one of the language's number of tokens."""
    head, config = getattr(model, "lm_head", None), model.config
    if not isinstance(head, nn.Linear):
        return
    vocab_size = len(tensors["lm_head.weight"])
    if vocab_size != head.out_features:
        like = head.weight
        model.lm_head = nn.Linear(head.in_features, vocab_size, device=like.device, dtype=like.dtype)
        model.lm_head.requires_grad_(like.requires_grad)
    any_config: Any = config
    any_config.vocab_size = vocab_size


def _check_head(tensors: dict[str, Tensor]) -> None:
    if "lm_head.weight" in tensors and len(tensors["lm_head.bias"]) != (size := len(tensors["lm_head.weight"])):
        raise CheckpointError(f"lm_head.bias of the adapter has {len(tensors['lm_head.bias'])} values, expected {size}")
