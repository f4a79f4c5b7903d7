"""Weights of a PyTorch model as the tree of its Flax counterpart, and back.

The tree has the names of checkpoints, with Flax's names and memory orders of the last part. Both follow from the kind
of the module that holds a weight, so no table names weights. Dtypes are kept, and both directions are exact.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import Tensor, nn

from raysp.models.base.configuration import short
from raysp.models.base.folded import WeightNorm
from raysp.models.base.modeling import Model
from raysp.models.base.weights import compare
from raysp.models.gpt2 import Conv1D

Tree = dict[str, Any]
Path = tuple[str, ...]

WEIGHT_NORM = {"original0": "weight_g", "original1": "weight_v"}


class Place(NamedTuple):
    """Where a weight of a checkpoint is in the tree."""

    name: str
    """Name in checkpoints."""
    path: Path
    """Path in the tree of parameters."""
    is_turned: bool
    """Whether its axes are reversed: dense layers are (in, out), convolutions (taps, in, out)."""
    shape: tuple[int, ...]
    """Shape in the tree."""


def leaves_of(tree: Mapping[str, Any]) -> dict[Path, Any]:
    """Return the leaves of a tree by their paths."""
    leaves: dict[Path, Any] = flatten_dict(flax.core.unfreeze(dict(tree)))  # type: ignore[no-untyped-call]
    return leaves


def tree_with(leaves: Mapping[Path, Any]) -> Tree:
    """Return the tree of leaves by their paths."""
    tree: Tree = unflatten_dict(leaves)  # type: ignore[no-untyped-call]
    return tree


def places_of(model: Model) -> list[Place]:
    """Return the place of each weight that a checkpoint of this model holds."""
    return [_place(model, name, value) for name, value in model.stored_weights().items()]


def _place(model: Model, name: str, value: Tensor) -> Place:
    module_name, _, leaf = name.rpartition(".")
    module, path, is_turned = model.get_submodule(module_name), module_name.split("."), False
    if isinstance(module, WeightNorm):
        path, leaf = path[:-2], WEIGHT_NORM[leaf]
    elif leaf == "weight":
        is_turned = isinstance(module, nn.Linear | nn.Conv1d)
        leaf = _leaf_of(module)
    shape = tuple(value.shape[::-1] if is_turned else value.shape)
    return Place(name, (*(part for part in path if part), leaf), is_turned, shape)


def _leaf_of(module: nn.Module) -> str:
    """Return Flax's name of a module's weight."""
    match module:
        case nn.Linear() | nn.Conv1d() | Conv1D():
            return "kernel"
        case nn.Embedding():
            return "embedding"
        case nn.LayerNorm() | nn.GroupNorm():
            return "scale"
        case _:
            return "weight"


def tree_of(places: Iterable[Place], tensors: Mapping[str, Tensor]) -> Tree:
    """Return the tree of parameters."""
    leaves = {}
    for place in places:
        value = _as_array(tensors[place.name])
        leaves[place.path] = jax.device_put(value.T if place.is_turned else value)
    return tree_with(leaves)


def tensors_of(places: Iterable[Place], params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights by their names in checkpoints."""
    leaves, tensors = leaves_of(params), {}
    for place in places:
        value = np.asarray(jax.device_get(leaves[place.path]))
        tensors[place.name] = _as_tensor(value.T if place.is_turned else value)
    return tensors


def check_tree(places: Iterable[Place], params: Mapping[str, Any]) -> None:
    """Raise ValueError unless a tree holds exactly the parameters, in their shapes."""
    actual = {"/".join(path): leaf for path, leaf in leaves_of(params).items()}
    expected = {"/".join(place.path): place for place in places}
    difference = compare(actual, expected)
    if difference.names:
        shapes = [f"{name} {is_} instead of {shape}" for name, is_, shape in difference.mismatched]
        raise ValueError(
            f"params do not fit the model: missing {short(difference.missing)}; unexpected "
            f"{short(difference.unexpected)}; shapes {short(shapes)}: expected the tree of model.params"
        )


def with_tied(params: Mapping[str, Any], tied: Iterable[tuple[Place, Place]]) -> Tree:
    """Return a tree with tied weights filled in; `tied` are pairs of a place and its source."""
    leaves = leaves_of(params)
    for place, source in tied:
        value = leaves[source.path]
        leaves[place.path] = value.T if place.is_turned != source.is_turned else value
    return tree_with(leaves)


def tied_places(model: Model) -> list[tuple[Place, Place]]:
    """Return the places of tied weights, each with its source."""
    weights = model.state_dict()
    return [
        (_place(model, name, weights[name]), _place(model, source, weights[source]))
        for name, source in model.tied_weights().items()
    ]


def _as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # unknown to NumPy
        array: np.ndarray[Any, Any] = tensor.view(torch.int16).numpy().view(jnp.bfloat16)
        return array
    return tensor.numpy()


def _as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    array = np.array(array, order="C")  # a copy: arrays of JAX are read-only
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
