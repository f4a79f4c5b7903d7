"""The tokenizer of a checkpoint, of the class that its files name."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from raysp.checkpoints.access import Access
from raysp.checkpoints.hub import PROCESSOR_FILES, local_folder
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.tokenizers.described import (
    BLANKS,
    CLASS_OF,
    PHONEMES,
    PIECES,
    PLAIN,
    TEXT,
    class_named,
    optional_json,
)

if TYPE_CHECKING:
    from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
    from raysp.models.tokenizers.pieces import ParakeetTokenizer
    from raysp.models.tokenizers.text import TextTokenizer

CTCTokenizer: TypeAlias = "Wav2Vec2CTCTokenizer | ParakeetTokenizer"
"""Tokenizer of the ids of a CTC head."""
TextOrCTCTokenizer: TypeAlias = "Wav2Vec2CTCTokenizer | TextTokenizer"

TOKENIZERS = {PLAIN: "ctc", PHONEMES: "phonemes", PIECES: "pieces", TEXT: "text"}
"""Classes of tokenizers with their modules, which are imported when a checkpoint names them."""


def read_tokenizer(
    pretrained_model_name_or_path: str | Path,
    *,
    revision: str | None = None,
    config: Config | None = None,
    tokenizer_type: str | None = None,
    **overrides: Any,  # noqa: ANN401 - of the tokenizer's class
) -> "TextOrCTCTokenizer":
    """Read the tokenizer of a CTC head or of a text decoder from a checkpoint folder or hub id.

    Args:
        pretrained_model_name_or_path: Folder or hub id.
        revision: Branch, tag or commit of a hub id.
        config: Configuration of the model, for a folder that has none and does not name the tokenizer's class.
        tokenizer_type: The same, by the name of the model's type.
        overrides: Settings that override the files.

    If no file names its class, it is the tokenizer of the text decoder, if there is one.
    """
    name_or_path, access = pretrained_model_name_or_path, Access.pop_from(overrides)
    overrides.setdefault("name_or_path", str(name_or_path))
    folder = local_folder(name_or_path, PROCESSOR_FILES, revision=revision, access=access)
    model_type = tokenizer_type or getattr(config, "model_type", None)
    if model_type in CLASS_OF and not (folder / "tokenizer_config.json").is_file():
        overrides.setdefault("tokenizer_class", CLASS_OF[model_type])
        name = TEXT
    else:
        name = class_named(folder)
    tokenizer: TextOrCTCTokenizer = _tokenizer_class(name).from_pretrained(folder, **overrides)
    return tokenizer


def read_ctc_tokenizer(folder: str | Path) -> "CTCTokenizer":
    """Read the tokenizer of a CTC head.

    Raises:
        CheckpointError: It belongs to a text decoder, or lacks the blank.
    """
    name = class_named(Path(folder))
    tokenizer = _tokenizer_class(PLAIN if name == TEXT else name).from_pretrained(folder)
    config = optional_json(Path(folder) / "config.json")
    if name == PIECES and (model_type := str(config.get("model_type"))) in BLANKS:
        tokenizer.writes_special = False
        if (blank := config.get("blank_token_id", BLANKS[model_type])) is not None:
            if blank not in tokenizer.get_vocab().values():
                raise CheckpointError(
                    f"{folder}: config.json has blank_token_id {blank!r}, expected the id of a token of "
                    "tokenizer.json: use the files that were saved with these weights"
                )
            tokenizer.pad_token_id = blank
    return cast("CTCTokenizer", tokenizer)


def _tokenizer_class(name: str) -> Any:  # noqa: ANN401 - any class of `TOKENIZERS`
    return getattr(import_module(f"raysp.models.tokenizers.{TOKENIZERS[name]}"), name)
