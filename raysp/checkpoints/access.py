"""Options of access to a checkpoint of the hub, and the other keywords of `from_pretrained` in transformers."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from raysp.bounds import shortened


@dataclass(frozen=True, kw_only=True)
class Access:
    """Options of access to a checkpoint, with the names of `from_pretrained` in transformers."""

    token: str | bool | None = None
    """Token of the hub, in place of HF_TOKEN."""
    cache_dir: str | Path | None = None
    """Folder of the cache, in place of HF_HOME."""
    local_files_only: bool = False
    """Use cached files only, as with HF_HUB_OFFLINE."""
    force_download: bool = False
    """Download cached files again."""
    subfolder: str = ""
    """Folder of the files within the folder or repository."""

    @classmethod
    def pop_from(cls, options: dict[str, Any]) -> Self:
        """Remove these keywords, and the keywords without effect, from `options` and return them.

        Raises:
            ValueError: `trust_remote_code`, or a keyword of `REFUSED_KEYWORDS`, is neither None nor False.
        """
        if options.pop("trust_remote_code", None):
            raise ValueError(
                "trust_remote_code=True is refused: raysp never runs code that comes with a checkpoint. Omit it; "
                "`raysp models` lists the supported architectures"
            )
        for name, way_out in REFUSED_KEYWORDS.items():
            if (value := options.pop(name, None)) is not None and value is not False:
                raise ValueError(f"{name}={shortened(value)} given, which raysp does not take: {way_out}")
        for name in WITHOUT_EFFECT:
            options.pop(name, None)
        if options.get("use_auth_token") is not None:  # its name before transformers 5
            options.setdefault("token", options["use_auth_token"])
        options.pop("use_auth_token", None)
        values = {field.name: options.pop(field.name) for field in fields(cls) if field.name in options}
        return cls(**{name: value for name, value in values.items() if value is not None})


DIRECT = Access()
WITHOUT_EFFECT = (
    *("low_cpu_mem_usage", "use_fast", "_fast_init", "weights_only", "offload_folder", "offload_state_dict"),
    *("max_memory", "resume_download"),
)
"""Keywords of `from_pretrained` without effect: weights are always read once and
on one device, pickles are plain weights, tokenizers have one implementation."""
_PARALLEL = "a model is on one device; labels of several GPUs come from several actors of a pool"
_OTHER_WEIGHTS = "`raysp convert` reads pickles, and transformers saves others as safetensors"
_QUANTISED = "omit it, and pass dtype=torch.bfloat16 for half the memory"
REFUSED_KEYWORDS = {
    "from_tf": _OTHER_WEIGHTS,
    "from_flax": _OTHER_WEIGHTS,
    "gguf_file": _OTHER_WEIGHTS,
    "quantization_config": _QUANTISED,
    "load_in_8bit": _QUANTISED,
    "load_in_4bit": _QUANTISED,
    "key_mapping": "rename the keys of a state_dict, and pass it as state_dict= with config=",
    "tp_plan": _PARALLEL,
    "tp_size": _PARALLEL,
    "device_mesh": _PARALLEL,
    "distributed_config": _PARALLEL,
    "use_kernels": "torch chooses the kernels: omit it",
    "kernel_config": "torch chooses the kernels: omit it",
    "experts_implementation": "no model has experts: omit it",
    "adapter_kwargs": "load adapters by peft.PeftModel.from_pretrained(model, folder)",
    "return_unused_kwargs": "a configuration keeps keywords that are none of its fields",
    "proxies": "set HTTPS_PROXY in the environment",
    "mirror": "set HF_ENDPOINT in the environment",
}
"""Keywords of `from_pretrained` in transformers that are refused unless they are None or False, with a remedy."""
KEYWORDS = ("revision", *(field.name for field in fields(Access)), *WITHOUT_EFFECT, "trust_remote_code")
