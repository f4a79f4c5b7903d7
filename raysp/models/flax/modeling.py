"""The base of Flax models: a Linen module with its parameters, read from and written to checkpoint folders.

A Flax model has the configuration, the checks and the initial weights of its PyTorch counterpart, which is kept without
weights. Parameters are a tree of arrays that functions of JAX take.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict, TypeVar

import jax
import jax.numpy as jnp
import torch
from flax import linen as nn

from raysp.models.base.configuration import Config
from raysp.models.base.modeling import SHARD_BYTES, Model, resolved
from raysp.models.base.placing import without_weights
from raysp.models.flax.weights import (
    Tree,
    check_tree,
    leaves_of,
    places_of,
    tensors_of,
    tied_places,
    tree_of,
    tree_with,
    with_tied,
)


class Switches(TypedDict, total=False):
    """Switches of a pass, for each combination of which a program is compiled."""

    train: bool
    with_states: bool
    with_weights: bool
    freezes_features: bool


Made = TypeVar("Made", bound=Model)
SWITCHES = tuple(Switches.__annotations__)
"""Arguments of a pass that select a program."""
Keys = dict[str, Any] | None
"""Keys of random numbers by their use; None: nothing is random."""
IGNORED = ("from_pt", "input_shape")
"""Arguments of the original without effect: every checkpoint is read alike, and no input is needed to build a model."""


class FlaxModel:
    """A model of one architecture; constructed from a configuration, its parameters are randomly initialised.

    Rows of a padded batch have the same outputs as alone, provided that `attention_mask` marks their ends. A program is
    compiled for each shape.

    Args:
        config: Configuration of the model.
        input_shape: Without effect.
        seed: Seed of the initial parameters, which equal the PyTorch class's after `torch.manual_seed(seed)`.
        dtype: Type of the computation; parameters keep their own.
        _do_init: Initialise parameters. If False, `params` is None and is passed to each call.
    """

    torch_class: ClassVar[type[Model]]

    def __init__(
        self,
        config: Config,
        input_shape: tuple[Any, ...] | None = None,
        seed: int = 0,
        dtype: Any = jnp.float32,  # noqa: ANN401 - a type, or its name
        _do_init: bool = True,
    ) -> None:
        if _do_init:
            self._take_over(seeded(seed, self.torch_class, config), dtype)
        else:
            with without_weights():
                self._take_over(self.torch_class(config), dtype)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        dtype: Any = jnp.float32,  # noqa: ANN401 - a type, or its name
        *,
        config: Config | None = None,
        seed: int = 0,
        _do_init: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - the model, or a pair
        """Load a checkpoint folder or hub id, the same that the PyTorch class loads.

        Args:
            name: A folder with config.json and safetensors, or a hub id.
            dtype: Type of the computation; parameters keep the type of the checkpoint.
            config: Replaces config.json.
            seed: Seed of parameters that the checkpoint lacks.
            _do_init: If False, return a model without parameters, and the parameters.
            options: Those of the PyTorch class's `from_pretrained`; `from_pt` is accepted and has no effect.

        Raises:
            CheckpointError: Files, names or shapes do not fit.
        """
        options = {name: value for name, value in options.items() if name not in IGNORED}
        loaded = seeded(seed, cls.torch_class.from_pretrained, name, config=config, **options)
        model = cls._of_torch(loaded, dtype)
        return model if _do_init else model._without_params()

    @classmethod
    def _of_torch(cls, loaded: Model, dtype: Any) -> Self:  # noqa: ANN401 - a type, or its name
        """Return the Flax model with the weights of a PyTorch model, which loses them."""
        model = cls.__new__(cls)
        model._take_over(loaded, dtype)
        return model

    def _take_over(self, loaded: Model, dtype: Any) -> None:  # noqa: ANN401 - a type, or its name
        self.dtype = jnp.dtype(dtype)
        self._sister = loaded.eval()
        self._places = places_of(loaded)
        self._tied = tied_places(loaded)
        self._params: Tree | None = None
        if loaded.device.type != "meta":
            self._params = tree_of(self._places, loaded.state_dict())
            loaded.to("meta")
        self.module = self.build_module()
        self._compile()

    def build_module(self) -> nn.Module:
        """Return the Linen module."""
        raise NotImplementedError

    def _compile(self) -> None:
        """Wrap the functions of arrays by `jax.jit`."""
        raise NotImplementedError

    def _without_params(self) -> tuple[Self, Tree]:
        params = self.params
        self._params = None
        return self, params

    @property
    def config(self) -> Any:  # noqa: ANN401 - of any model
        """The configuration."""
        return self._sister.config

    @property
    def new_weights(self) -> frozenset[str]:
        """Names of weights that the checkpoint lacked; they were randomly initialised."""
        return self._sister.new_weights

    @property
    def params(self) -> Tree:
        """The parameters: a tree with the names of checkpoints; assignable, also sharded over devices."""
        if self._params is None:
            raise ValueError("the model has no parameters (_do_init=False): pass params=... to each call")
        return self._params

    @params.setter
    def params(self, value: Mapping[str, Any]) -> None:
        check_tree(self._places, value)
        self._params = dict(value)

    # Types

    def to_bf16(self, params: Mapping[str, Any] | None = None, mask: Any = None) -> Tree:  # noqa: ANN401 - a tree
        """Return parameters as bfloat16; the model's own do not change.

        Args:
            params: Parameters; None: the model's.
            mask: A tree of bools like `params`, true for those to convert; None: all.
        """
        return _cast(self._params_or_own(params), jnp.bfloat16, mask)

    def to_fp16(self, params: Mapping[str, Any] | None = None, mask: Any = None) -> Tree:  # noqa: ANN401 - a tree
        """Return parameters as float16; arguments as for `to_bf16`."""
        return _cast(self._params_or_own(params), jnp.float16, mask)

    def _params_or_own(self, params: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return self.params if params is None else params

    # Files

    def save_pretrained(
        self, folder: str | Path, params: Mapping[str, Any] | None = None, *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        """Write config.json and safetensors with the names of PyTorch, which both classes load.

        Args:
            folder: Folder to write to.
            params: Parameters in place of the model's own.
            shard_bytes: Largest size of a file of weights.
        """
        tensors = tensors_of(self._places, self._params_or_own(params))
        self._sister.to(dtype=next(value.dtype for value in tensors.values() if value.is_floating_point()))
        self._sister.save_pretrained(folder, state_dict=tensors, shard_bytes=shard_bytes)

    # Computation

    def _variables(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables of the module: parameters in the computation's type, with tied weights."""
        return {"params": _cast(with_tied(params, self._tied), self.dtype, None)}

    def _apply(self, variables: Any, *args: Any, rngs: Keys = None, method: str | None = None) -> Any:  # noqa: ANN401
        """Run a method of the module."""
        return self.module.apply(variables, *args, rngs=rngs, method=method)

    def _switches(
        self, train: bool, output_attentions: bool | None, output_hidden_states: bool | None, freezes_features: bool
    ) -> Switches:
        """Return the switches of a pass."""
        return {
            "train": train,
            "with_states": resolved(output_hidden_states, self.config.output_hidden_states),
            "with_weights": resolved(output_attentions, self.config.output_attentions),
            "freezes_features": freezes_features,
        }


def seeded(seed: int, make: Callable[..., Made], *args: Any, **options: Any) -> Made:  # noqa: ANN401 - arguments
    """Return a model whose random weights are drawn by a seed; the generator of torch does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(*args, **options)


def _cast(params: Mapping[str, Any], dtype: Any, mask: Any) -> Tree:  # noqa: ANN401 - a type, a tree
    def cast_leaf(leaf: Any, is_masked: bool = True) -> Any:  # noqa: ANN401 - an array
        return leaf.astype(dtype) if is_masked and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    if mask is None:
        cast: Tree = jax.tree.map(cast_leaf, dict(params))
        return cast
    masks = leaves_of(mask)
    return tree_with({path: cast_leaf(leaf, masks[path]) for path, leaf in leaves_of(params).items()})


def rngs_of(dropout_rng: Any, train: bool) -> Keys:  # noqa: ANN401 - a key, or None
    """Return the random generators of a call.

    Raises:
        ValueError: In training without a key.
    """
    if train and dropout_rng is None:
        raise ValueError("train=True without dropout_rng, expected a key: pass dropout_rng=jax.random.key(0)")
    return {"dropout": dropout_rng} if train else None
