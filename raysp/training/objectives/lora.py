"""LoRA (Hu et al. 2021) by peft: products of two narrow matrices added to linear layers, merged into weights on export.

peft is an extra, whose import takes seconds: it is imported only for LoRA.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from raysp.errors import PlanError
from raysp.models.auto import AutoConfig, AutoModel, AutoModelForCausalLM
from raysp.models.base.modeling import Model
from raysp.models.base.placing import without_weights
from raysp.models.gpt2 import Conv1D
from raysp.training.data.micro_batches import seeded
from raysp.training.objectives.starting_model import head_names
from raysp.training.specs.adaptation import LoRA

TARGETS = (
    *("q_proj", "k_proj", "v_proj", "out_proj"),  # Wav2Vec2, HuBERT, UniSpeech, BART, mBART
    *("query_proj", "key_proj", "value_proj"),  # SEW-D, with BERT's output
    *("linear_q", "linear_k", "linear_v", "linear_out"),  # Wav2Vec2-BERT
    *("query", "key", "value", "attention.output.dense", "crossattention.output.dense"),  # BERT
    *("c_attn", "q_attn", "attn.c_proj", "crossattention.c_proj"),  # GPT-2
)
"""Last parts of the names of the attention's projections, in all architectures."""
BASE, ADDED = ".base_layer.", re.compile(r"\.lora_[A-Z]+\.")
"""Part that peft adds to the names of a layer's weights, and the pattern of its own weights."""


def check_targets(targets: Sequence[str] | None, folder: Path, decoder: Path | None = None) -> None:
    """Raise PlanError for targets that a checkpoint does not have; no weights are read.

    Args:
        targets: last parts of names of layers; None: `TARGETS`.
        folder: checkpoint to begin with.
        decoder: checkpoint of a decoder of its own.
    """
    with without_weights():
        encoder = AutoModel.from_config(AutoConfig.from_pretrained(folder))
        models = {encoder.base_model_prefix: encoder}
        if decoder is not None:
            of_decoder = AutoConfig.from_pretrained(decoder)
            models = {"encoder": encoder, "decoder": AutoModelForCausalLM.from_config(of_decoder)}
    chosen([f"{part}.{name}" for part, model in models.items() for name in _linear_layers(model)], targets)


def chosen(names: Sequence[str], targets: Sequence[str] | None) -> list[str]:
    """Return the names that end with one of the targets.

    Args:
        names: names of layers.
        targets: last parts of names, each of which must occur; None: `TARGETS`, of which one must occur.

    Raises:
        PlanError: a target does not occur.
    """
    by_target = {target: [name for name in names if f".{name}".endswith(f".{target}")] for target in targets or TARGETS}
    missing = [target for target, members in by_target.items() if not members]
    if missing if targets else not any(by_target.values()):
        layers = ", ".join(sorted({name.rpartition(".")[2] for name in names})) or "none"
        raise PlanError(
            f"found objective.lora.targets={[*missing] if targets else None}, which no trained linear layer is named "
            f"after; the layers are {layers}: name some of them"
        )
    matching = {name for members in by_target.values() for name in members}
    return [name for name in names if name in matching]


def add_lora(model: Model, lora: LoRA, *, seed: int) -> None:
    """Train products added to linear layers of a model instead of its weights.

    The products begin with 0. Weights of the head, and weights that the checkpoint lacks, are trained as before.

    Args:
        model: the model; layers that are not trained get no products.
        lora: rank, scale and dropout of the products, and their layers.
        seed: seed of initial weights.

    Raises:
        PlanError: the model has no layer of a target.
    """
    whole = head_names(model) | model.new_weights
    heads = [weight for name, weight in model.named_parameters() if weight.requires_grad and name in whole]
    names = chosen([name for name in _linear_layers(model) if f"{name}.weight" not in whole], lora.targets)
    peft: Any = import_module("peft")
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=names)
    config._register_custom_module({Conv1D: _beside_conv1d})
    with seeded(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unsupported layer type")  # Conv1D, which has the two required widths
        peft.inject_adapter_in_model(config, model)
    for weight in heads:
        weight.requires_grad_(True)


def merged_weights(model: Model) -> Mapping[str, Tensor]:
    """Return the weights that a checkpoint of a model holds, with products added to the weights of their layers."""
    weights = model.stored_weights()
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):  # of peft, which may not be installed
            (adapter,) = layer.active_adapters
            place = f"{name}{BASE}weight"
            weights[place] = weights[place] + layer.get_delta_weight(adapter).detach()
    return {name.replace(BASE, "."): weight for name, weight in weights.items() if not ADDED.search(name)}


def _beside_conv1d(layer: Conv1D, name: str, **options: Any) -> Any:  # noqa: ANN401 - a module of peft and its options
    """Return peft's module for a layer whose weight is (in, out)."""
    module = import_module("peft.tuners.lora").Linear(layer, name, **options)
    module.fan_in_fan_out = True
    return module


def _linear_layers(model: Model) -> Iterable[str]:
    """Yield the names of linear layers that are trained and tied to no other weight."""
    tied = {name.rpartition(".")[0] for name in model.tied_weights()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module.weight.requires_grad and name not in tied:
            yield name
