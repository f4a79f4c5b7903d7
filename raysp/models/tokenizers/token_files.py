"""Tokens and classes in the files of tokenizers, as the releases of transformers have written them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from raysp.errors import CheckpointError
from raysp.models.files.configuration import read_json

TOKENIZER_FILE = "tokenizer.json"
PHONEMES = "Wav2Vec2PhonemeCTCTokenizer"
CLASS_OF = {  # model_type -> tokenizer_class, if tokenizer_config.json has none
    "bert": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "bart": "BartTokenizer",
    "mbart": "MBartTokenizer",
    "parakeet_ctc": "ParakeetTokenizer",
    "parakeet_rnnt": "ParakeetTokenizer",
    "parakeet_tdt": "ParakeetTokenizer",
}


@dataclass(frozen=True)
class AddedToken:
    """A token that is never split; `lstrip` and `rstrip` absorb adjacent spaces."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    special: bool = False


def optional_json(path: Path) -> dict[str, Any]:
    """Return the content of a file, or {} if it is absent."""
    return read_json(path) if path.is_file() else {}


def content_of(folder: Path, name: str, token: Any) -> str | None:  # noqa: ANN401 - JSON
    """Return a token given as a string, or as an object with its `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return None if token is None else cast(str, of_kind(folder, name, content, str))


def of_kind(folder: Path, name: str, value: Any, kind: type) -> Any:  # noqa: ANN401 - JSON
    """Return a value of tokenizer_config.json; raise CheckpointError unless it has the expected type."""
    if not isinstance(value, kind):
        where = folder / "tokenizer_config.json"
        raise CheckpointError(f"{where}: {name} is {value!r}, expected {kind.__name__}: save the tokenizer again")
    return value


def read_added_tokens(folder: Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Return the added tokens by id, as transformers 4.34 and later writes them, or as earlier ones did."""
    if "added_tokens_decoder" in config:
        found = config["added_tokens_decoder"]
        entries = [(index, token) for index, token in of_kind(folder, "added_tokens_decoder", found, dict).items()]
    else:
        found = optional_json(folder / "added_tokens.json")
        entries = [(index, {"content": token}) for token, index in found.items()]
    flags = [name for name in AddedToken.__dataclass_fields__ if name != "content"]
    added = {}
    for index, token in entries:
        if not str(index).isdecimal() or not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise CheckpointError(f"{folder}: added token {index!r} is {token!r}, expected an id and its content")
        added[int(index)] = AddedToken(token["content"], **{name: bool(token.get(name, False)) for name in flags})
    return added


def names_text_tokenizer(folder: Path) -> bool:
    """Return whether a checkpoint has a text tokenizer, by its class or else by its model."""
    name = optional_json(folder / "tokenizer_config.json").get("tokenizer_class") or class_of_model(folder)
    return name is not None and not str(name).startswith("Wav2Vec2")


def names_pieces(folder: Path) -> bool:
    """Return whether a checkpoint has the word pieces of a CTC head, by its class or else by its model."""
    name = str(optional_json(folder / "tokenizer_config.json").get("tokenizer_class"))
    if name.startswith(("Wav2Vec2", "Parakeet")):
        return name.startswith("Parakeet")
    return class_of_model(folder) == "ParakeetTokenizer"


def names_phonemes(folder: Path) -> bool:
    """Return whether a checkpoint's CTC head writes phonemes, by the class of its tokenizer."""
    files = (optional_json(folder / name) for name in ("tokenizer_config.json", "config.json"))
    named = (one.get("tokenizer_class") for one in files)
    return next((name for name in named if name is not None), None) == PHONEMES


def class_of_model(folder: Path) -> str | None:
    """Return the tokenizer's class by the type of the model or of its decoder."""
    config = optional_json(folder / "config.json")
    decoder = config.get("decoder")
    model_type = (decoder if isinstance(decoder, dict) else config).get("model_type")
    found = CLASS_OF.get(str(model_type))
    return found or ("TokenizersBackend" if (folder / TOKENIZER_FILE).is_file() else None)
