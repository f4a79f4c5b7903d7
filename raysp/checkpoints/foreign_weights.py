"""Weights in formats that raysp does not read: the formats found in place of safetensors, with a remedy."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from raysp import bounds
from raysp.errors import CheckpointError

PICKLED = re.compile(r"(pytorch_model.*|adapter\..+)\.bin")
_SHOWN = 5


def explanation(name: str, files: Iterable[str], revision: str | None = None) -> str:
    """Return the weights that were found and expected, with a remedy, as text.

    Args:
        name: the checkpoint as the user gave it, for the command.
        files: names of its files.
        revision: a revision of the hub id that has safetensors.
    """
    there = sorted(file for file in files if "/" not in file)
    if found := [file for file in there if PICKLED.fullmatch(file)]:
        instead = f", or use the pull request that proposes safetensors, if you trust its author: {revision}"
        return (
            f"has pickled weights only ({_some(found)}), which can run any code; expected model.safetensors: convert "
            f"them with `raysp convert {_quoted(name)} FOLDER`, which runs no code, and use FOLDER"
            f"{instead if revision else ''}"
        )
    for pattern, remedy in _OTHERS:
        if found := [file for file in there if re.fullmatch(pattern, file)]:
            return f"has no weights that raysp reads, found {_some(found)}, expected model.safetensors: {remedy}"
    return f"no weights there, found {_some(there) or 'nothing'}; expected model.safetensors: complete the checkpoint"


MERGING = (
    "merge it into the model (peft: PeftModel.from_pretrained(model, folder).merge_and_unload()), and save_pretrained "
    "the result with the processor"
)
"""Remedy for a checkpoint that is an adapter over other weights."""
ADAPTER_CONFIG = "adapter_config.json"
"""File of an adapter of PEFT."""
_OTHERS = (
    (
        r"model\.bin",
        'it is a model of CTranslate2 (faster-whisper): pass backend="ctranslate2" to Label, or use the checkpoint '
        "that it was made from",
    ),
    (
        r"flax_model.*\.msgpack|tf_model.*\.h5",
        "they are those of Flax or TensorFlow: load them with transformers 4 (from_pretrained(..., from_flax=True) or "
        "from_tf=True), and save_pretrained",
    ),
    (
        r".+\.nemo",
        "it is an archive of NeMo: if its model is a FastConformer with a CTC head, RNN-T or TDT, download it and "
        "convert it with `raysp convert FILE.nemo FOLDER`; Canary is not read: use a model such as "
        "nvidia/parakeet-ctc-1.1b",
    ),
    (
        r"adapter_model\.(safetensors|bin)",
        f"it is an adapter of PEFT over the checkpoint that {ADAPTER_CONFIG} names: {MERGING}",
    ),
    (r"model\.\w+\.safetensors", "it is another variant of the weights: copy it as model.safetensors"),
    (
        r".+\.(pt|pth|ckpt)",
        "a .pt, .pth or .ckpt file is a training checkpoint of fairseq or another program, of its own layout: use the "
        "folder in the layout of Hugging Face that its publisher has, or convert it with the script of transformers "
        "for its model",
    ),
    (r".+\.(onnx|gguf|ggml|tflite|mlmodel)", "use the checkpoint that they were exported from"),
)
"""Patterns of names, with remedies for such files."""
FOREIGN = re.compile("|".join([PICKLED.pattern, *(pattern for pattern, _ in _OTHERS)]))
"""Pattern of the names of all weights in formats that raysp does not read."""


def refuse_adapter(folder: Path) -> None:
    """Raise if a checkpoint is an adapter of PEFT over other weights, which labels would be made without.

    Raises:
        CheckpointError: it is an adapter; the message has a remedy.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{folder}: {ADAPTER_CONFIG} makes it an adapter over other weights: {MERGING}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return bounds.plain(", ".join(names[:_SHOWN])) + more


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[\w@%+=:,./-]+", name) else "'" + name.replace("'", "'\"'\"'") + "'"
