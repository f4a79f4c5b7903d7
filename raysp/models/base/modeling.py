"""The base of models: a `torch.nn.Module` with a configuration that loads from and saves to checkpoint folders."""

import contextlib
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypedDict, TypeVar, overload

import torch
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.outputs import ModelOutput
from raysp.models.files.comparison import compare, short
from raysp.models.files.configuration import Config, suggestion
from raysp.models.files.hub import KEYWORDS, Access, local_folder, model_folder
from raysp.models.files.sharing import upload_saved
from raysp.models.files.unweighted import without_weights
from raysp.models.files.weights import read_tensors, write_tensors

logger = logging.getLogger(__name__)

Padding = Literal["exact", "reference"]
Count = TypeVar("Count", int, Tensor)
Output = TypeVar("Output", bound=ModelOutput)
DeviceMap = str | int | torch.device | Mapping[str, str | int | torch.device] | None
Value = TypeVar("Value")
SHARD_BYTES = 5 * 10**9
ATTN_IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")


ARGUMENTS = (
    *("config", "dtype", "device", "device_map", "padding", "strict", "ignore_mismatched_sizes", "allow_pickle"),
    *("attn_implementation", "target_lang", "output_loading_info", "use_safetensors", *KEYWORDS),
)
"""Names that `from_pretrained` knows besides fields of configurations."""


class LoadingInfo(TypedDict):
    """What did not come from the checkpoint, and what of it has no place in the model."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """Names with the shapes of the checkpoint and of the model."""
    error_msgs: list[str]
    """Always empty: what cannot be loaded is an exception."""


class Model(nn.Module):
    """A model of one architecture; made of a configuration, it has weights drawn as that says.

    `padding` says what padding may do. "exact": a row of a padded batch gives what it gives alone, provided that
    `attention_mask` says where it ends. "reference": the arithmetic of transformers, whose padding leaks.
    """

    config_class: ClassVar[type[Config]]
    base_model_prefix: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ()
    training_only: ClassVar[tuple[str, ...]] = ()
    """Last parts of names of weights that inference does not use: published checkpoints lack them or have them in
    excess."""

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - as the base's
        """Let a model draw its weights once it is whole, which no constructor knows: a subclass's may go on."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _drawing(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._padding: Padding = "exact"
        self._origin: tuple[str | Path, str | None, Access] | None = None

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

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return how many numbers the parameters hold; tied ones count once.

        Args:
            only_trainable: Count those that require gradients.
            exclude_embeddings: Leave out the weights of `nn.Embedding` modules.
        """
        tables = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if not (only_trainable and not parameter.requires_grad)
            and not (exclude_embeddings and id(parameter) in tables)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of parameters, and of buffers unless `return_buffers` is False."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

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
    def receptive_samples(self) -> int:
        """Samples from the start of a frame to its end: n samples give `(n - this) // frame_stride + 1` frames.

        An input of fewer than `min_samples` may still be too short.
        """
        samples = self.min_samples + 64 * self.frame_stride
        frames = int(self.num_frames(samples))
        while int(self.num_frames(samples - 1)) == frames:
            samples -= 1
        return samples - (frames - 1) * self.frame_stride

    @property
    def hidden_stride(self) -> int:
        """Samples from one frame of `hidden_states` to the next."""
        return self.frame_stride

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the frames of `hidden_states` that inputs of these numbers of samples give."""
        return self.num_frames(num_samples)

    @property
    def output_size(self) -> int:
        """Width of `last_hidden_state`."""
        config: Any = self.config
        return int(config.hidden_size)

    @property
    def speech_encoder(self) -> "Model":
        """The model that turns audio into frames, whose `encode` every pass goes through."""
        return self.base_model

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

    def _draw_first_weights(self) -> None:
        """Draw the weights of a model that is just made; one on the device "meta" has none."""
        if self.device.type != "meta":
            self.init_weights()

    def _init_module(self, module: nn.Module) -> None:
        """Draw the weights that one module holds itself."""
        raise NotImplementedError

    @classmethod
    def is_training_only(cls, name: str) -> bool:
        """Tell whether inference can do without a weight."""
        return name.rpartition(".")[2] in cls.training_only

    @overload
    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        output_loading_info: Literal[True],
        **options: Any,  # noqa: ANN401
    ) -> tuple[Self, LoadingInfo]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        config: Config | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: DeviceMap = None,
        padding: Padding = "exact",
        strict: bool = False,
        ignore_mismatched_sizes: bool = False,
        allow_pickle: bool = False,
        attn_implementation: str | None = None,
        revision: str | None = None,
        target_lang: str | None = None,
        output_loading_info: Literal[False] = False,
        **overrides: Any,  # noqa: ANN401
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        config: Config | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: DeviceMap = None,
        padding: Padding = "exact",
        strict: bool = False,
        ignore_mismatched_sizes: bool = False,
        allow_pickle: bool = False,
        attn_implementation: str | None = None,
        revision: str | None = None,
        target_lang: str | None = None,
        output_loading_info: bool = False,
        **overrides: Any,
    ) -> Self | tuple[Self, LoadingInfo]:
        """Load a checkpoint, in eval mode.

        Args:
            name: A folder with config.json and safetensors, or a hub id such as "facebook/wav2vec2-base-960h".
            config: Used in place of config.json.
            dtype: Of the weights, such as torch.bfloat16 or "float32"; None or "auto" keeps what is stored.
            device: Where to put the weights; None is the CPU.
            device_map: The same for habits from transformers: "auto" is the GPU where there is one. One device alone.
            padding: See the class.
            strict: Refuse a checkpoint without this model's head or with another one; else a head that it lacks is
                drawn anew, and one that the model lacks is left out, both with a warning. Weights of the base model
                must always be those of the model, except for those that `config` or an override adds to or takes from
                what config.json describes, such as an adapter (`add_adapter=True`): they are treated like a head.
            ignore_mismatched_sizes: Draw weights anew whose shape differs.
            allow_pickle: Open pytorch_model.bin where there are no safetensors (weights alone, no program).
            attn_implementation: "eager", "sdpa" or "flash_attention_2": accepted, and without effect, as torch chooses
                the kernel and any of them can give attention weights.
            revision: Branch, tag or commit of a hub id.
            target_lang: Language of a CTC model's adapter; see `load_adapter` there.
            output_loading_info: Return what was drawn anew and what was left out, too.
            overrides: Values that replace those of the configuration; or `token`, `cache_dir`, `local_files_only`,
                `force_download` and `subfolder` as in transformers. `use_safetensors=True`, `low_cpu_mem_usage` and
                `trust_remote_code=False` ask for what is done anyway; code of a checkpoint is never run.

        Raises:
            CheckpointError: Files, names or shapes do not fit.
            TypeError: An override is not a field of the configuration.
        """
        dtype = overrides.pop("torch_dtype", dtype)  # its name before transformers 5
        access = Access.taken(overrides)
        use_safetensors = overrides.pop("use_safetensors", None)
        if use_safetensors is False and not allow_pickle:
            raise ValueError(
                "use_safetensors=False given, but raysp opens pickled weights only where that is asked for: pass "
                "allow_pickle=True, or leave use_safetensors out"
            )
        check_attn_implementation(attn_implementation)
        allow_pickle = allow_pickle and not use_safetensors
        folder = model_folder(name, revision=revision, allow_pickle=allow_pickle, access=access)
        is_written = config is None and not overrides
        config = overridden(config or cls.config_class.from_pretrained(folder), overrides)
        with without_weights():
            model = cls(config) if target_lang is None else cls._with_language(config, target_lang)
        model._origin = (name, revision, access)
        tensors, left_over = model._fit_names(read_tensors(folder, allow_pickle=allow_pickle))
        changed = set() if is_written or strict else model._changed_names(folder)
        info = model._load(folder, tensors, left_over, strict, ignore_mismatched_sizes, changed)
        model.to(device=one_device(device, device_map), dtype=as_dtype(dtype))
        model._complete(allow_pickle)
        model.padding = padding
        config.dtype = str(model.dtype).removeprefix("torch.")
        return (model.eval(), info) if output_loading_info else model.eval()

    def _changed_names(self, folder: Path) -> set[str]:
        """Return the weights that only one of this model and the model of the folder's config.json has."""
        try:
            with without_weights():
                written = type(self)(type(self).config_class.from_pretrained(folder))
        except CheckpointError:  # no config.json, or one that describes no model without what was replaced
            return set()
        return set(written.stored_weights()) ^ set(self.stored_weights())

    @classmethod
    def _with_language(cls, config: Config, target_lang: str) -> Self:
        """Make a model whose adapter of a language is to be loaded."""
        raise ValueError(f"{cls.__name__} takes no target_lang, which is for CTC models with adapters")

    def _complete(self, allow_pickle: bool) -> None:
        """Load what stands beside the weights."""

    def _comes_later(self, name: str) -> bool:
        """Tell whether `_complete` gives a weight."""
        return False

    def origin_folder(self, files: Sequence[str]) -> Path:
        """Return the folder of the checkpoint that this model came from, with these files where it has them."""
        if self._origin is None:
            raise CheckpointError(
                f"this {type(self).__name__} came from no checkpoint, expected one beside which {files[0]} stands: "
                "load the model by from_pretrained"
            )
        name, revision, access = self._origin
        return local_folder(name, files, revision=revision, access=access)

    def _fit_names(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Take the base model out of a checkpoint with a head, or put one without under this model's prefix.

        Returns the tensors, and the names of a head that the base model leaves out.
        """
        prefix = self.base_model_prefix + "."
        stored_with_prefix = any(name.startswith(prefix) for name in tensors)
        if self.base_model is self and stored_with_prefix:
            of_base = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            return of_base, [name for name in tensors if not name.startswith(prefix)]
        if self.base_model is not self and not stored_with_prefix:
            return {prefix + name: value for name, value in tensors.items()}, []
        return dict(tensors), []

    def tied_weights(self) -> dict[str, str]:
        """Return the weights that are another's, with that other's name; files hold only the latter."""
        return {}

    def tie_weights(self) -> None:
        """Make tied weights one tensor, as after loading."""
        for name, source in self.tied_weights().items():
            module, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(module), attribute, self.get_parameter(source))

    def untie(self, name: str) -> None:
        """Give a tied weight its own values, where a checkpoint has other ones for it."""
        raise NotImplementedError

    def stored_weights(self) -> dict[str, Tensor]:
        """Return the weights that a checkpoint holds: all but the tied ones."""
        tied = self.tied_weights()
        return {name: value for name, value in self.state_dict().items() if name not in tied}

    def current_names(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return what a checkpoint holds by this model's names, without what it has no place for."""
        return dict(values)

    def _without_tied(self, folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Drop what is tied, or untie it where the checkpoint has other values for it."""
        tensors = dict(tensors)
        for name, source in self.tied_weights().items():
            if name not in tensors:
                continue
            if source in tensors and not torch.equal(tensors[name], tensors[source]):
                logger.warning("%s: %s and %s differ, so they are not tied", folder, name, source)
                self.untie(name)
            else:
                tensors.setdefault(source, tensors.pop(name))
        return tensors

    def _load(
        self,
        folder: Path,
        tensors: dict[str, Tensor],
        left_over: list[str],
        strict: bool,
        ignore_sizes: bool,
        changed: Set[str],
    ) -> LoadingInfo:
        """Raise for weights that must fit and do not, report the others, and take over the tensors."""
        tensors = self._without_tied(folder, tensors)
        expected = self.stored_weights()
        difference = compare(_shapes(tensors), _shapes(expected))
        later = {name for name in difference.names if self._comes_later(name)}
        replaced = {name for name, _, _ in difference.mismatched if ignore_sizes or name in later}
        optional = [name for name in difference.names if name in changed or self._may_differ(name, strict)]
        difference.without(optional, shapes=replaced).check(folder)
        reported = difference.without(shapes=later)
        info: LoadingInfo = {
            "missing_keys": {*reported.missing} - later,
            "unexpected_keys": {*left_over, *reported.unexpected},
            "mismatched_keys": {*reported.mismatched},
            "error_msgs": [],
        }
        self._report(folder, info)
        self._assign({name: tensors[name] for name in expected if name in tensors and name not in replaced})
        return info

    def _assign(self, tensors: dict[str, Tensor]) -> None:
        """Make these tensors the weights; initialise the weights that they lack."""
        names = self.stored_weights().keys()
        if names - tensors.keys():
            initial = type(self)(self.config).state_dict()
            tensors = {name: tensors[name] if name in tensors else initial[name] for name in names}
        self.load_state_dict(tensors, assign=True, strict=not self.tied_weights())
        self.tie_weights()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.is_floating_point())

    def _may_differ(self, name: str, strict: bool) -> bool:
        """Tell whether a weight may be missing, or left over."""
        if self.is_training_only(name) or self._comes_later(name):
            return True
        is_head = self.base_model is not self and not name.startswith(self.base_model_prefix + ".")
        return is_head and not strict

    def _report(self, folder: Path, info: LoadingInfo) -> None:
        drawn = {*info["missing_keys"], *(name for name, _, _ in info["mismatched_keys"])}
        telling = sorted(name for name in drawn if not self.is_training_only(name))
        if telling:
            logger.warning("%s: drawn anew, train them before use: %s", folder, short(telling))
        left_out = sorted(name for name in info["unexpected_keys"] if not self.is_training_only(name))
        if left_out:
            logger.info("%s: left out, as %s has no place for it: %s", folder, type(self).__name__, short(left_out))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, object] | None = None) -> None:
        """In training keep a layer's input alone and compute the layer again for gradients: less memory, more time.

        The one way of torch without re-entrance is used; `gradient_checkpointing_kwargs` cannot ask for the other.
        """
        if (gradient_checkpointing_kwargs or {}).get("use_reentrant", False):
            raise ValueError("use_reentrant=True asked for, only False is there")
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep all activations again."""
        self._set_gradient_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether any part computes activations again."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def _set_gradient_checkpointing(self, value: bool) -> None:
        parts: list[Any] = [module for module in self.modules() if hasattr(module, "gradient_checkpointing")]
        if not parts:
            raise ValueError(f"{type(self).__name__} has no part that can compute its activations again")
        for part in parts:
            part.gradient_checkpointing = value

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Refuse, as transformers 5 has no such method any more.

        Raises:
            NotImplementedError: Always, with what to do instead.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: attention heads cannot be pruned, which transformers 5 has given up, too: to "
            "silence a head, set its columns of the weight behind the attention (out_proj, output.dense, ...) to 0"
        )

    def returned(self, output: Output, return_dict: bool | None) -> Output | tuple[Any, ...]:
        """Return an output as it is, or as a plain tuple where the caller or the configuration says so."""
        return output if asked(return_dict, self.config.return_dict) else output.to_tuple()

    def save_pretrained(self, folder: str | Path, *, shard_bytes: int = SHARD_BYTES) -> None:
        """Write config.json and safetensors, which transformers loads too."""
        self.config.architectures = [type(self).__name__]
        self.config.dtype = str(self.dtype).removeprefix("torch.")
        self.config.save_pretrained(folder)
        write_tensors(Path(folder), self.stored_weights(), shard_bytes)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - those of `upload`
        """Save into a repository of the Hugging Face hub; options and result as for `sharing.upload`."""
        return upload_saved(self, repo_id, **options)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _drawing(construct: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor after which the weights are drawn, if it is the outermost of its object."""

    @functools.wraps(construct)
    def constructed(self: Model, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the constructor's
        is_outermost = "_is_unfinished" not in vars(self)
        vars(self)["_is_unfinished"] = True
        if not is_outermost:
            construct(self, *args, **kwargs)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # they are refused
                construct(self, *args, **kwargs)
            del vars(self)["_is_unfinished"]
            _refuse_empty_weights(self)
            self._draw_first_weights()

    return constructed


def _refuse_empty_weights(model: Model) -> None:
    empty = next(((name, weight) for name, weight in model.named_parameters() if weight.numel() == 0), None)
    if empty is not None:
        raise CheckpointError(
            f"{type(model).__name__}: {empty[0]} would have the shape {tuple(empty[1].shape)} and so no values, "
            "expected sizes from 1: correct config.json"
        )


@contextlib.contextmanager
def encoded_by(model: Model) -> Iterator[list[ModelOutput]]:
    """Collect what a model's encoder gives while the block lasts, so that one pass serves its head and others."""
    encoder: Any = model.speech_encoder
    encode, outputs = encoder.encode, []

    def observed(*args: Any, **kwargs: Any) -> ModelOutput:  # noqa: ANN401 - as for encode
        output: ModelOutput = encode(*args, **kwargs)
        outputs.append(output)
        return output

    encoder.encode = observed
    try:
        yield outputs
    finally:
        del encoder.encode  # the class's own is seen again


def as_dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    """Return torch.float32 for it or for "float32", and None for None or "auto"."""
    if value is None or value == "auto":
        return None
    found = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise CheckpointError(f"dtype is {value!r}, expected 'auto', 'float32', 'bfloat16' or 'float16'")
    return found


def one_device(device: torch.device | str | None, device_map: DeviceMap) -> torch.device:
    """Return the device that either argument names; "auto" is the GPU where there is one."""
    if device_map is not None and device is not None:
        raise ValueError(f"both device {device!r} and device_map {device_map!r} given, expected one of them")
    if isinstance(device_map, Mapping):
        if set(device_map) != {""}:
            raise ValueError(
                f"device_map is {dict(device_map)!r}, expected one device for the whole model: {{'': ...}}"
            )
        device_map = device_map[""]
    wanted = device if device_map is None else device_map
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device("cuda", wanted) if isinstance(wanted, int) else torch.device(wanted or "cpu")
    except RuntimeError as error:
        raise ValueError(f"device is {wanted!r}, expected 'auto', 'cpu' or 'cuda:0'") from error


def check_attn_implementation(name: str | None) -> None:
    """Raise ValueError for a way of attention that is not one of `ATTN_IMPLEMENTATIONS`."""
    if name is not None and name not in ATTN_IMPLEMENTATIONS:
        raise ValueError(f"attn_implementation is {name!r}, expected one of {', '.join(ATTN_IMPLEMENTATIONS)}")


def overridden(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return a configuration with some values replaced; each must be one that it has."""
    unknown = [name for name in overrides if not hasattr(config, name)]
    if unknown:
        known = [*vars(config), "num_labels", *ARGUMENTS]
        named = ", ".join(f"{name!r}{suggestion(name, known)}" for name in unknown)
        raise TypeError(f"{named}: no argument of from_pretrained and no field of {type(config).__name__}")
    return type(config).from_dict(config.to_dict(), **overrides) if overrides else config


def asked(argument: bool | None, configured: bool) -> bool:
    """Return an argument of `forward`, or what the configuration says where it is None."""
    return configured if argument is None else argument
