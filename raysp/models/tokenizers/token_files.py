"""Tokens in the files of tokenizers, as the releases of transformers have written them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from raysp.errors import CheckpointError
from raysp.models.files.configuration import read_json


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
    """Return the content of a file, or nothing if it is absent."""
    return read_json(path) if path.is_file() else {}


def content_of(folder: Path, name: str, token: Any) -> str | None:  # noqa: ANN401 - JSON
    """Return a token given as a string, or as an object with its `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return None if token is None else cast(str, of_kind(folder, name, content, str))


def of_kind(folder: Path, name: str, value: Any, kind: type) -> Any:  # noqa: ANN401 - JSON
    """Return a value of tokenizer_config.json if it has the expected type."""
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
