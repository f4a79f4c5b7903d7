"""The base of models: a `torch.nn.Module` with a configuration that loads from and saves to checkpoint folders."""

import functools
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from raysp.capabilities import Capability
from raysp.checkpoints.access import KEYWORDS, Access
from raysp.checkpoints.hub import local_folder, model_folder
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config, short, upload_folder, upload_saved
from raysp.models.base.outputs import ModelOutput
from raysp.models.base.placing import DeviceMap, as_dtype, built, check_attn_implementation, one_device
from raysp.models.base.row_layout import Count
from raysp.models.base.weights import (
    Fit,
    Value,
    are_equal,
    canonical_name,
    compare,
    num_bytes,
    read_tensors,
    without_tied,
    write_tensors,
)
from raysp.words import suggestion

logger = logging.getLogger(__name__)

Output = TypeVar("Output", bound=ModelOutput)
SHARD_BYTES = 5 * 10**9
UPLOADING = ("repo_id", "commit_message", "private", "token", "revision", "create_pr")
"""Arguments of `push_to_hub`."""
HEAD_PARTS = frozenset(
    {
        *("lm_head", "ctc_head", "classifier", "projector", "layer_weights", "tdnn", "objective"),
        *("quantizer", "project_q", "project_hid", "ctc_proj", "final_proj", "label_embs_concat"),
        *("speaker_proj", "label_embeddings_concat", "layer_norm_for_extract"),
    }
)
"""First parts of the names of weights of heads, in checkpoints whose encoder has no prefix; the last ones are of
pre-training."""


ARGUMENTS = (
    *("config", "dtype", "device", "device_map", "strict", "ignore_mismatched_sizes", "allow_pickle"),
    *("attn_implementation", "target_lang", "use_safetensors", "state_dict"),
    *KEYWORDS,
)
"""Arguments of `from_pretrained` besides fields of configurations."""


class Model(nn.Module):
    """A model of one architecture; constructed from a configuration, its weights are randomly initialised.

    A row of a padded batch has the same output as alone, provided that `attention_mask` marks its end.
    """

    config_class: ClassVar[type[Config]]
    base_model_prefix: ClassVar[str]
    gives: ClassVar[tuple[Capability, ...]] = ()
    """Results of the head, in addition to the hidden states."""
    training_only: ClassVar[tuple[str, ...]] = ()
    """Suffixes of weights used in training only, which published checkpoints may lack or add."""
    name_or_path: str = ""
    """Folder or hub id that the model was loaded from."""

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401 - as the base's
        """Wrap the constructor so that weights are initialised after the outermost one has returned."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _initialising(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self._origin: tuple[str | Path, str | None, Access] | None = None
        self.new_weights: frozenset[str] = frozenset()
        """Names of weights that the checkpoint lacked, or had in another shape; they were randomly initialised."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of elements of the parameters, or only of trainable ones; tied weights count once."""
        return sum(weight.numel() for weight in self.parameters() if weight.requires_grad or not only_trainable)

    @property
    def min_samples(self) -> int:
        """Number of samples of the shortest input of the speech encoder, which has one frame."""
        return self.speech_encoder.min_samples

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        return self.speech_encoder.frame_stride

    def num_frames(self, num_samples: Count) -> Count:
        """Return the number of frames for these numbers of samples, at least 0."""
        return self.speech_encoder.num_frames(num_samples)

    @property
    def receptive_samples(self) -> int:
        """Samples from the start of a frame to its end: n samples have `(n - this) // frame_stride + 1` frames.

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
        return self.speech_encoder.hidden_stride

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the number of frames of `hidden_states` for these numbers of samples."""
        return self.speech_encoder.num_hidden_frames(num_samples)

    @property
    def output_size(self) -> int:
        """Width of the encoder's `last_hidden_state`."""
        return self.speech_encoder.output_size

    @property
    def speech_encoder(self) -> "Model":
        """The model that encodes audio into frames; every forward pass calls its `encode`."""
        return self.base_model

    @property
    def base_model(self) -> "Model":
        """The model below the head, or the model itself."""
        base: Model = getattr(self, self.base_model_prefix, self)
        return base

    def init_weights(self) -> Self:
        """Initialise all weights from torch's generator; return the model."""
        with torch.no_grad():
            for module in reversed(list(self.modules())):  # a module after its parts, which it may initialise again
                self._init_module(module)
        return self

    def _init_new_model(self) -> None:
        """Initialise a new model, unless it is on the device "meta"."""
        if self.device.type != "meta":
            self.init_weights()

    @property
    def initial_deviation(self) -> float:
        """Standard deviation of initial weights."""
        config: Any = self.config
        return float(config.initializer_range)

    def _init_module(self, module: nn.Module) -> None:
        """Initialise the weights that one module holds itself."""
        match module:
            case nn.Linear():
                nn.init.normal_(module.weight, std=self.initial_deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=self.initial_deviation)
                if module.padding_idx is not None:
                    nn.init.zeros_(module.weight[module.padding_idx])
            case nn.LayerNorm() | nn.GroupNorm() | nn.BatchNorm1d():
                module.reset_parameters()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, object] | None = None) -> None:
        """Recompute layers in the backward pass of training: less memory, more time.

        Only the non-reentrant variant of torch is supported (`use_reentrant=False`).

        Raises:
            ValueError: `use_reentrant` is True, or no part of the model can recompute its activations.
        """
        if (gradient_checkpointing_kwargs or {}).get("use_reentrant", False):
            raise ValueError("use_reentrant is True, expected False: omit it")
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Store all activations again."""
        self._set_gradient_checkpointing(False)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether any part recomputes activations."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def _set_gradient_checkpointing(self, value: bool) -> None:
        parts: list[Any] = [module for module in self.modules() if hasattr(module, "gradient_checkpointing")]
        if not parts:
            raise ValueError(f"{type(self).__name__} does not support gradient checkpointing")
        for part in parts:
            part.gradient_checkpointing = value

    @classmethod
    def is_training_only(cls, name: str) -> bool:
        """Return whether a weight is used in training only."""
        return name.rpartition(".")[2] in cls.training_only

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None,
        *,
        config: Config | str | Path | None = None,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: DeviceMap = None,
        strict: bool = False,
        ignore_mismatched_sizes: bool = False,
        allow_pickle: bool = False,
        attn_implementation: str | None = None,
        revision: str | None = None,
        target_lang: str | None = None,
        **overrides: Any,  # noqa: ANN401 - fields of the configuration, and those below
    ) -> Self:
        """Load a checkpoint, in eval mode. Within `without_weights` its weights are not read.

        Args:
            pretrained_model_name_or_path: A folder with config.json and safetensors, or a hub id such as
                "facebook/wav2vec2-base-960h"; None if `config` and `state_dict` are passed.
            config: Replaces config.json; or the folder or hub id of another one.
            dtype: Data type of the weights, such as torch.bfloat16 or "float32"; None or "auto": as stored.
            device: Device of the weights; None is the CPU.
            device_map: Alternative to `device`, as in transformers: "auto" is the GPU if there is one. One device only.
            strict: Refuse a checkpoint without this model's head or with another one. If False, a missing head is
                randomly initialised with a warning, and an extra one is ignored. Weights of the base model must always
                match, except weights that `config` or an override adds to or removes from config.json, such
                as an adapter (`add_adapter=True`): they are treated like a head.
            ignore_mismatched_sizes: Initialise weights whose shape differs.
            allow_pickle: Read pytorch_model.bin if there are no safetensors (weights only, no code).
            attn_implementation: "eager", "sdpa" or "flash_attention_2": accepted, but without effect: torch
                chooses the kernel, and attention weights are always available.
            revision: Branch, tag or commit of a hub id.
            target_lang: Language of a CTC model's adapter; see `load_adapter` there.
            overrides: Values that override the configuration. Or `state_dict`, weights by name that replace the
                checkpoint's; `token`, `cache_dir`, `local_files_only`, `force_download` and `subfolder`, as
                in transformers. `use_safetensors=True`, `low_cpu_mem_usage` and `trust_remote_code=False` are the
                defaults; code of a checkpoint is never run.

        Raises:
            CheckpointError: Files, names or shapes do not fit.
            TypeError: An override is not a field of the configuration.
        """
        name = pretrained_model_name_or_path
        dtype = overrides.pop("torch_dtype", dtype)  # its name before transformers 5
        access = Access.pop_from(overrides)
        use_safetensors = overrides.pop("use_safetensors", None)
        if use_safetensors is False and not allow_pickle:
            raise ValueError(
                "use_safetensors=False given, but raysp reads pickled weights only with allow_pickle=True: pass it, or "
                "omit use_safetensors"
            )
        check_attn_implementation(attn_implementation)
        allow_pickle = allow_pickle and not use_safetensors
        state_dict: Mapping[str, Tensor] | None = overrides.pop("state_dict", None)
        if name is None and (config is None or state_dict is None):
            raise ValueError("name is None, expected a folder or a hub id, or both of config and state_dict")
        folder = Path("state_dict")  # in messages
        if name is not None:
            folder = model_folder(name, revision=revision, allow_pickle=allow_pickle, access=access)
        if isinstance(config, str | Path):
            config = cls.config_class.from_pretrained(config)
        is_written = config is None and not overrides
        config = overridden(config or cls.config_class.from_pretrained(folder), overrides)
        make = cls if target_lang is None else functools.partial(cls._with_language, target_lang=target_lang)
        model = built(make, config, folder / "config.json")
        model._origin = None if name is None else (name, revision, access)
        model.name_or_path = config.name_or_path = "" if name is None else str(name)
        if state_dict is None:
            stored = read_tensors(folder, allow_pickle=allow_pickle)
        else:
            stored = {canonical_name(key): value.detach().clone() for key, value in state_dict.items()}
        changed = set() if is_written or strict else model._changed_names(folder)
        fit = model.fit(
            stored, folder, are_equal=are_equal, strict=strict, ignore_sizes=ignore_mismatched_sizes, changed=changed
        )
        fit.refused.check(folder)
        model._load(folder, fit, strict)
        # Before the adapter is loaded, which takes the type and device of the model.
        model.to(device=one_device(device, device_map), dtype=as_dtype(dtype))
        model._complete(allow_pickle)
        config.dtype = model.dtype
        return model.eval()

    def _changed_names(self, folder: Path) -> set[str]:
        """Return the weights that are in either this model or the model of config.json, but not in both."""
        try:
            written = built(type(self), type(self).config_class.from_pretrained(folder), folder / "config.json")
        except CheckpointError:  # no config.json, or one that is invalid without the overrides
            return set()
        return set(written.stored_weights()) ^ set(self.stored_weights())

    @classmethod
    def _with_language(cls, config: Config, target_lang: str) -> Self:
        """Make a model for the adapter of a language."""
        raise ValueError(f"{cls.__name__} takes no target_lang, expected a CTC model with adapters: omit it")

    def _complete(self, allow_pickle: bool) -> None:
        """Load further files than the weights."""

    def _comes_later(self, name: str) -> bool:
        """Return whether `_complete` loads a weight."""
        return False

    def origin_folder(self, files: Sequence[str]) -> Path:
        """Return the folder of the checkpoint that this model was loaded from, with these files if it has them."""
        if self._origin is None:
            raise CheckpointError(
                f"this {type(self).__name__} was not loaded from a checkpoint, expected one with {files[0]}: "
                "load the model with from_pretrained"
            )
        name, revision, access = self._origin
        return local_folder(name, files, revision=revision, access=access)

    def fit(
        self,
        stored: Mapping[str, Value],
        where: str | Path,
        *,
        are_equal: Callable[[Value, Value], bool],
        strict: bool,
        ignore_sizes: bool = False,
        changed: Set[str] = frozenset(),
    ) -> Fit[Value]:
        """Return the fit of a checkpoint's weights to this model: for a check by headers, and for loading.

        Args:
            stored: Weights by their canonical names in the checkpoint.
            where: Name of the checkpoint for messages.
            are_equal: Returns whether weights have the same values; called for tied weights stored under both names.
            strict: As for `from_pretrained`.
            ignore_sizes: As `ignore_mismatched_sizes` there.
            changed: Weights that overrides of the configuration add or remove.

        Raises:
            CheckpointError: Two tied weights have different values.
        """
        named, unused = self._fit_names(stored)
        named = without_tied(named, self.tied_weights(), are_equal, where)
        expected = self.stored_weights()
        difference = compare(named, expected)
        replaced = {name for name, _, _ in difference.mismatched if ignore_sizes or self._comes_later(name)}
        optional = [name for name in difference.names if name in changed or self._may_differ(name, strict)]
        values = {name: named[name] for name in expected if name in named and name not in replaced}
        return Fit(values, difference, difference.without(optional, shapes=replaced), tuple(unused))

    def _fit_names(self, values: Mapping[str, Value]) -> tuple[dict[str, Value], list[str]]:
        """Return weights by this model's names, and the names of weights of other heads.

        A base model drops the prefix and the head of a checkpoint; a model with a head adds a missing prefix.
        """
        prefix = self.base_model_prefix + "."
        stored_with_prefix = any(name.startswith(prefix) for name in values)
        if stored_with_prefix:
            if self.base_model is not self:
                return dict(values), []
            of_base = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
            return of_base, [name for name in values if not name.startswith(prefix)]
        of_heads = [name for name in values if name.partition(".")[0] in HEAD_PARTS]
        if self.base_model is self:
            return {name: value for name, value in values.items() if name not in of_heads}, of_heads
        return {name if name in of_heads else prefix + name: value for name, value in values.items()}, []

    def tied_weights(self) -> dict[str, str]:
        """Return {name: name of the weight that it equals}; files hold the latter only."""
        return {}

    def tie_weights(self) -> None:
        """Make tied weights share one tensor."""
        for name, source in self.tied_weights().items():
            module, _, attribute = name.rpartition(".")
            setattr(self.get_submodule(module), attribute, self.get_parameter(source))

    def stored_weights(self) -> dict[str, Tensor]:
        """Return the weights that a checkpoint holds: all except tied copies."""
        tied = self.tied_weights()
        return {name: value for name, value in self.state_dict().items() if name not in tied}

    def _load(self, folder: Path, fit: Fit[Tensor], strict: bool) -> None:
        """Make the tensors of a checkpoint the weights, initialise those that it lacks, and report differences."""
        later = {name for name in fit.difference.names if self._comes_later(name)}
        reported = fit.difference.without(later, shapes=later)
        initialised = [*reported.missing, *(name for name, _, _ in reported.mismatched)]
        self.new_weights = frozenset(name for name in initialised if not self.is_training_only(name))
        warn_of_random(folder, self.new_weights)
        unexpected = (*fit.unused, *reported.unexpected)
        if unused := [name for name in unexpected if not self.is_training_only(name)]:
            parts = sorted({name.partition(".")[0] for name in unused})
            is_reported = strict or len(self.config.architectures or ()) > 1  # checked and reported before
            level = logging.INFO if is_reported else logging.WARNING
            logger.log(level, "%s: not used by %s: %s", folder, type(self).__name__, short(parts))
        names, tensors = self.stored_weights().keys(), dict(fit.values)
        if names - tensors.keys():
            initial = type(self)(self.config).state_dict()
            tensors = {name: tensors[name] if name in tensors else initial[name] for name in names}
        # Assigned, not copied: the tensors of the file become the weights, in their own type.
        self.load_state_dict(tensors, assign=True, strict=not self.tied_weights())
        self.tie_weights()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.is_floating_point())

    def _may_differ(self, name: str, strict: bool) -> bool:
        """Return whether a weight may be missing or unexpected."""
        if self.is_training_only(name) or self._comes_later(name):
            return True
        return self.is_of_head(name) and not (strict and self.gives)  # of a head of pre-training no label is made

    def is_of_head(self, name: str) -> bool:
        """Return whether a weight belongs to a head over the base model."""
        return self.base_model is not self and not name.startswith(self.base_model_prefix + ".")

    def prune_heads(self, heads_to_prune: Mapping[int, Sequence[int]]) -> None:
        """Raise NotImplementedError; transformers 5 has removed the method.

        Raises:
            NotImplementedError: Always; the message has an alternative.
        """
        raise NotImplementedError(
            f"{type(self).__name__}: pruning of attention heads is not supported (transformers 5 removed it too): to "
            "disable a head, set its columns of the weight after the attention (out_proj, output.dense, ...) to 0"
        )

    def returned(self, output: Output, return_dict: bool | None) -> Output | tuple[Any, ...]:
        """Return the output, or its plain tuple if the argument or the configuration says so."""
        return output if resolved(return_dict, self.config.return_dict) else output.to_tuple()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        state_dict: Mapping[str, Tensor] | None = None,
        shard_bytes: int = SHARD_BYTES,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **options: Any,  # noqa: ANN401 - of `push_to_hub`
    ) -> None:
        """Write config.json and safetensors, which transformers can load.

        Args:
            save_directory: Folder to write into.
            state_dict: Weights in place of the model's own.
            shard_bytes: Largest size of a file of weights.
            max_shard_size: The same as in transformers, such as "5GB".
            push_to_hub: Upload the folder's files too, into the repository `repo_id`, by default the folder's name.
            options: Those of `push_to_hub`, such as `repo_id`, `token` and `private`.
        """
        if unknown := [name for name in options if name not in (UPLOADING if push_to_hub else ())]:
            raise TypeError(
                f"{', '.join(map(repr, unknown))}: no argument of save_pretrained"
                + ("" if push_to_hub else " without push_to_hub=True")
            )
        folder = Path(save_directory)
        if max_shard_size is not None:
            shard_bytes = num_bytes(max_shard_size)
        self.config.architectures = [type(self).__name__]
        self.config.dtype = self.dtype
        self.config.save_pretrained(folder)
        weights = self.stored_weights() if state_dict is None else state_dict
        write_tensors(folder, weights, shard_bytes)
        self._save_extra_files(folder)
        if push_to_hub:
            upload_folder(folder, options.pop("repo_id", None) or folder.resolve().name, **options)

    def _save_extra_files(self, folder: str | Path) -> None:
        """Write further files than configuration and weights."""

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - options of `upload`
        """Save into a repository of the Hugging Face hub; options and result as for `uploading.upload`."""
        return upload_saved(self, repo_id, **options)


def _initialising(construct: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that initialises the weights if it is the outermost one of its object."""

    @functools.wraps(construct)
    def constructed(self: Model, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the constructor's
        is_outermost = "_is_under_construction" not in vars(self)
        vars(self)["_is_under_construction"] = True
        if not is_outermost:
            construct(self, *args, **kwargs)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # an error below
                construct(self, *args, **kwargs)
            del vars(self)["_is_under_construction"]
            for name, weight in self.named_parameters():
                if weight.numel() == 0:
                    raise CheckpointError(
                        f"{type(self).__name__}: {name} would have the shape {tuple(weight.shape)} and no values, "
                        "expected sizes of at least 1: correct config.json"
                    )
            self._init_new_model()

    return constructed


def warn_of_random(where: object, names: Iterable[str]) -> None:
    """Log the names of randomly initialised weights, if there are any."""
    if new := sorted(names):
        logger.warning("%s: randomly initialised, train them before use: %s", where, short(new))


def overridden(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return a configuration with some of its values replaced."""
    unknown = [name for name in overrides if not hasattr(config, name)]
    if unknown:
        names = [*vars(config), "num_labels", *ARGUMENTS]
        named = ", ".join(f"{name!r}{suggestion(name, names)}" for name in unknown)
        raise TypeError(f"{named}: neither an argument of from_pretrained nor a field of {type(config).__name__}")
    return type(config).from_dict(config.to_dict(), **overrides) if overrides else config


def resolved(argument: bool | None, configured: bool) -> bool:
    """Return an argument of `forward`, or the configured value if it is None."""
    return configured if argument is None else argument
