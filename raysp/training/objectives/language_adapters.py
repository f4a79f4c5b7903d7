"""Training of a language's adapter layers and head (MMS, Pratap et al. 2023) over an encoder that stays as it is."""

import shutil
from pathlib import Path
from typing import Any

from raysp.checkpoints.contents import adapter_files, vocabularies_of
from raysp.checkpoints.hub import snapshot_of
from raysp.errors import CheckpointError
from raysp.models.auto import AutoConfig
from raysp.models.base.configuration import write_json
from raysp.models.base.modeling import Model
from raysp.models.encoder.encoder_heads import ForCTC
from raysp.models.encoder.languages import (
    Evidence,
    adapter_file_names,
    adapter_weights,
    compare_language,
    init_adapter_layers,
)
from raysp.training.objectives.head_tokenizers import tokenizer_of

WIDTH = 16
"""Width of new adapter layers, as in MMS."""


def adapter_options(folder: Path, language: str, *, is_new: bool) -> dict[str, Any]:
    """Return the options of `from_pretrained` for a model with adapter layers; no weights are read.

    Args:
        folder: the checkpoint to begin with.
        language: the language.
        is_new: whether the adapter layers are initialised; else the checkpoint's for the language are used.

    Raises:
        CheckpointError: the architecture has no adapter layers, or the checkpoint lacks the language.
    """
    config: Any = AutoConfig.from_pretrained(folder)
    if not (hasattr(config, "adapter_attn_dim") and config.do_stable_layer_norm):
        raise CheckpointError(
            f"{folder}: {config.model_type} has adapter layers only with do_stable_layer_norm=True, found none; leave "
            "out objective.adapter, or begin with another checkpoint, such as facebook/mms-1b-all"
        )
    options: dict[str, Any] = {"adapter_attn_dim": int(config.adapter_attn_dim or WIDTH)}
    if is_new:
        return options
    tokenizer = tokenizer_of(folder)
    (name,) = adapter_file_names(language, allow_pickle=False)
    if (folder / name).is_file() and tokenizer.is_multilingual:
        return {**options, "target_lang": language}
    if tokenizer.is_multilingual and tokenizer.target_lang != language:
        raise CheckpointError(
            f"{folder}: {name} not found; complete the checkpoint, or set objective.vocabulary='build' for a new "
            "adapter"
        )
    weights = compare_language(folder, language, "objective.adapter is")
    return {**options, "target_lang": language} if weights is Evidence.REPLACED else options


def train_language(model: Model, language: str, *, is_new: bool) -> None:
    """Train adapter layers and head alone.

    Args:
        model: a model with a CTC head.
        language: name under which they are saved.
        is_new: whether they are initialised.
    """
    assert isinstance(model, ForCTC)
    if is_new:
        init_adapter_layers(model)
    model.requires_grad_(False)
    for weight in adapter_weights(model).values():
        weight.requires_grad_(True)
    model.target_lang = language


def add_languages(folder: Path, source: Path, language: str) -> None:
    """Add the other languages of the checkpoint that a training began with: the encoder of their adapters is the same.

    Languages with another blank than the trained language are left out, since config.json has one blank. Of a
    checkpoint of the hub none are added: which of its files are here depends on what was fetched.

    Args:
        folder: the exported checkpoint.
        source: folder of the checkpoint that the training began with.
        language: the trained language.
    """
    vocabularies, own = vocabularies_of(source), vocabularies_of(folder)
    if snapshot_of(source) is not None or language not in own:
        return
    pad = str(tokenizer_of(folder).pad_token)
    blank = own[language].get(pad)
    for other, path in adapter_files(source).items():
        if other != language and other in vocabularies and vocabularies[other].get(pad) == blank:
            own[other] = vocabularies[other]
            shutil.copyfile(path, folder / path.name)
    write_json(folder / "vocab.json", dict(sorted(own.items())))
