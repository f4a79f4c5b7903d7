"""The base of models: a `torch.nn.Module` with a configuration that loads from and saves to checkpoint folders."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.configuration import Config
from raysp.models.weights import check_names_and_shapes, read_tensors, write_tensors

logger = logging.getLogger(__name__)

Padding = Literal["exact", "reference"]
Count = TypeVar("Count", int, Tensor)
SHARD_BYTES = 5 * 10**9


class Model(nn.Module):
    """A model of one architecture.

    `padding` says what padding may do. "exact": a row of a padded batch gives what it gives alone, provided that
    `attention_mask` says where it ends. "reference": the arithmetic of transformers, whose padding leaks.
    """

    config_class: ClassVar[type[Config]]
    base_model_prefix: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ()
    training_only: ClassVar[tuple[str, ...]] = ()
    """Last parts of names of weights that inference does not use: published checkpoints lack them or have them in
    excess."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._padding: Padding = "exact"

    @property
    def padding(self) -> Padding:
        """What padding may do: "exact" or "reference"."""
        return self._padding

    @padding.setter
    def padding(self, value: Padding) -> None:
        if value not in ("exact", "reference"):
            raise ValueError(f"padding is {value!r}, expected 'exact' or 'reference'")
        for module in self.modules():
            if isinstance(module, Model):
                module._padding = value

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which gives one frame."""
        raise NotImplementedError

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        raise NotImplementedError

    def num_frames(self, num_samples: Count) -> Count:
        """Return the frames that inputs of these numbers of samples give, at least 0."""
        raise NotImplementedError

    @property
    def base_model(self) -> "Model":
        """The model below the head, or the model itself."""
        base: Model = getattr(self, self.base_model_prefix, self)
        return base

    def init_weights(self) -> Self:
        """Draw all weights anew from torch's generator; returns the model."""
        with torch.no_grad():
            for module in reversed(list(self.modules())):  # a module after its parts, which it may draw anew
                self._init_module(module)
        return self

    def _init_module(self, module: nn.Module) -> None:
        """Draw the weights that one module holds itself."""
        raise NotImplementedError

    @classmethod
    def is_training_only(cls, name: str) -> bool:
        """Tell whether inference can do without a weight."""
        return name.rpartition(".")[2] in cls.training_only

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        config: Config | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        padding: Padding = "exact",
        strict: bool = True,
        **overrides: Any,  # noqa: ANN401 - fields of the configuration
    ) -> Self:
        """Load a checkpoint folder, in eval mode.

        Args:
            folder: Holds config.json and safetensors.
            config: Used in place of config.json.
            dtype: Of the weights, such as torch.bfloat16 or "float32"; None or "auto" keeps what is stored.
            device: Where to put the weights; None is the CPU.
            padding: See the class.
            strict: False gives a head that the checkpoint lacks new weights and leaves out what the model lacks.
            overrides: Values that replace those of the configuration.

        Raises:
            CheckpointError: Files, names or shapes do not fit.
        """
        if config is None:
            config = cls.config_class.from_pretrained(folder, **overrides)
        elif overrides:
            config = type(config).from_dict({**config.to_dict(), **overrides})
        with torch.device("meta"):
            model = cls(config)
        tensors = model._fit_names(read_tensors(Path(folder)))
        model._load(Path(folder), tensors, strict)
        model.to(device=torch.device(device or "cpu"), dtype=as_dtype(dtype))
        model.padding = padding
        config.dtype = str(model.dtype).removeprefix("torch.")
        return model.eval()

    def _fit_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the base model out of a checkpoint with a head, or put one without under this model's prefix."""
        prefix = self.base_model_prefix + "."
        stored_with_prefix = any(name.startswith(prefix) for name in tensors)
        if self.base_model is self and stored_with_prefix:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if self.base_model is not self and not stored_with_prefix:
            return {prefix + name: value for name, value in tensors.items()}
        return dict(tensors)

    def _load(self, folder: Path, tensors: dict[str, Tensor], strict: bool) -> None:
        expected = self.state_dict()
        if not strict:
            tensors = {
                name: value
                for name, value in tensors.items()
                if name in expected and expected[name].shape == value.shape
            }
        optional = [name for name in {*expected, *tensors} if not strict or self.is_training_only(name)]
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        check_names_and_shapes(folder, found, {name: tuple(v.shape) for name, v in expected.items()}, optional)
        fresh = [name for name in expected if name not in tensors]
        if fresh:
            logger.info("%s: not in the checkpoint, drawn anew: %s", folder, ", ".join(fresh))
            initial = type(self)(self.config).init_weights().state_dict()
            tensors.update({name: initial[name] for name in fresh})
        self.load_state_dict({name: tensors[name] for name in expected}, assign=True)
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.is_floating_point())

    def save_pretrained(self, folder: str | Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        """Write config.json and safetensors, which transformers loads too."""
        self.config.architectures = [type(self).__name__]
        self.config.dtype = str(self.dtype).removeprefix("torch.")
        self.config.save_pretrained(folder)
        write_tensors(Path(folder), self.state_dict(), shard_bytes)


def as_dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    """Return torch.float32 for it or for "float32", and None for None or "auto"."""
    if value is None or value == "auto":
        return None
    found = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise CheckpointError(f"dtype is {value!r}, expected 'auto', 'float32', 'bfloat16' or 'float16'")
    return found
