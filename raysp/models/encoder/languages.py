"""The language of a checkpoint of many languages (MMS): of its tokenizer, and of the weights of its layers and head.

`model.safetensors` holds the adapter layers and the head of one language and has no name for it. A file
`adapter.<lang>.safetensors` beside it holds those of a named language, and equal values give the weights this name.
"""

import logging
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.files.weights import read_header, read_safetensors, read_some

logger = logging.getLogger(__name__)

RELATIVE, ABSOLUTE = 1e-2, 1e-3
"""Tolerances between weights that were saved in different data types."""


def check_tokenizer_language(folder: Path, languages: Collection[str], language: str) -> None:
    """Check that the weights of a checkpoint are those of the language of its tokenizer; see `check_language`."""
    is_known = check_language(folder, language, "tokenizer_config.json has target_lang")
    if not is_known and len(languages) > 1:
        pickle = folder / f"adapter.{language}.bin"
        found = f"{pickle.name} is a pickle, which is not read" if pickle.is_file() else "there is no such file"
        logger.warning(
            "%s: tokenizer_config.json has target_lang %r, one of %d languages of vocab.json, and nothing confirms "
            "that the weights are of this language: they are compared with adapter.%s.safetensors, and %s",
            *(folder, language, len(languages), language, found),
        )


def check_language(folder: Path, language: str, source: str) -> bool:
    """Check that the adapter layers and the head of a checkpoint are those of a language.

    They are compared with the file of this language; without one, with those of other languages. Return whether the
    file of this language confirms it.

    Args:
        folder: the checkpoint.
        language: the language.
        source: where it is set, for messages: such as "tokenizer_config.json has target_lang".

    Raises:
        CheckpointError: they are those of another language, or differ from the file of this one.
    """
    files = {path.name.split(".")[1]: path for path in sorted(folder.glob("adapter.*.safetensors"))}
    own = files.pop(language, None)
    if own is not None and _holds(folder, own):
        return True
    other = next((name for name, path in files.items() if _holds(folder, path)), None)
    if own is None and other is None:
        return False
    differs = "" if own is None else f" differ from {own.name}"
    equals = "" if other is None else f"{' and' if differs else ''} equal those of {files[other].name}"
    remedies = [] if other is None else [f"set it to {other!r}"]
    if own is not None:
        remedies.append(
            f"write the weights of {language!r} into the checkpoint (AutoModelForCTC.from_pretrained(folder, "
            f"target_lang={language!r}).save_pretrained(folder))"
        )
    else:
        remedies.append(f"add adapter.{language}.safetensors and write its weights into the checkpoint")
    raise CheckpointError(
        f"{folder}: {source} {language!r}, but adapter layers and head of the weights{differs}{equals}: "
        f"{', or '.join(remedies)}"
    )


def _holds(folder: Path, adapter: Path) -> bool:
    """Return whether the weights of a checkpoint include those of an adapter's file."""
    names = sorted(header.name for header in read_header(adapter))
    names.sort(key=lambda name: not name.startswith("lm_head."))  # most languages differ there
    for some in (names[:2], names[2:]):
        expected, found = read_safetensors(adapter, some), read_some(folder, some)
        if not all(name in found and _are_equal(found[name], value) for name, value in expected.items()):
            return False
    return True


def _are_equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype == other.dtype:
        return torch.equal(one, other)
    return torch.allclose(one.float(), other.float(), rtol=RELATIVE, atol=ABSOLUTE)
