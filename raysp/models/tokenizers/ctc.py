"""The character tokenizer of CTC models: text to ids, and frame-wise ids to text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from raysp.errors import CheckpointError
from raysp.models.base.configuration import read_json, short, write_json
from raysp.models.tokenizers.described import (
    NO_LIMIT,
    OLD_SPECIAL_TOKENS,
    SPECIAL_TOKENS,
    AddedToken,
    DescribedTokenizer,
    Rows,
    Written,
    content_of,
    of_kind,
    optional_json,
    read_added_tokens,
    refuse_unknown,
    text_of,
)

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "word_delimiter_token")
OPTIONS = {
    "replace_word_delimiter_char": str,
    "do_lower_case": bool,
    "target_lang": str,
    "clean_up_tokenization_spaces": bool,
}
SETTINGS = ("model_max_length", "padding_side", "truncation_side", "name_or_path")
"""Attributes that `from_pretrained` takes too."""


class Wav2Vec2CTCTokenizer(DescribedTokenizer):
    """A tokenizer with a vocabulary {token: id}, or one per language {language: {token: id}}."""

    is_of_ctc = True
    model_input_names = ("input_ids", "attention_mask")
    named_tokens: ClassVar[tuple[str, ...]] = NAMED_TOKENS
    special_names: ClassVar[tuple[str, ...]] = NAMED_TOKENS
    """Named tokens that are special."""
    older_names: ClassVar[tuple[str, ...]] = ("Wav2Vec2Tokenizer",)
    option_types: ClassVar[Mapping[str, type]] = OPTIONS
    joint: str = ""
    """Text between the tokens of a word."""
    begins_words: frozenset[int] = frozenset()
    """Ids of the tokens that begin a word: empty, since a token stands between words."""

    def __init__(
        self,
        vocab: Mapping[str, Any] | str | Path,
        bos_token: str | None = "<s>",
        eos_token: str | None = "</s>",
        unk_token: str | None = "<unk>",
        pad_token: str | None = "<pad>",
        word_delimiter_token: str | None = "|",
        replace_word_delimiter_char: str = " ",
        do_lower_case: bool = False,
        target_lang: str | None = None,
        added_tokens: Mapping[int, AddedToken] | None = None,
        extra_special_tokens: Sequence[str] = (),
        clean_up_tokenization_spaces: bool = False,
        *,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
    ) -> None:
        """Make a tokenizer from a vocabulary or the path of its JSON file."""
        self.vocab: dict[str, Any] = read_json(Path(vocab)) if isinstance(vocab, str | Path) else dict(vocab)
        self.bos_token, self.eos_token = text_of(bos_token), text_of(eos_token)
        self.unk_token, self.pad_token = text_of(unk_token), text_of(pad_token)
        self.word_delimiter_token = text_of(word_delimiter_token)
        self.replace_word_delimiter_char = replace_word_delimiter_char
        self.do_lower_case = do_lower_case
        self.extra_special_tokens = tuple(map(text_of, extra_special_tokens))
        self.model_max_length, self.padding_side, self.truncation_side = model_max_length, padding_side, truncation_side
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.target_lang = target_lang
        self._added: dict[int, AddedToken] = dict(added_tokens or {})
        self._use_vocabulary(target_lang)

    def set_target_lang(self, target_lang: str) -> None:
        """Switch to the vocabulary of another language.

        Raises:
            ValueError: the vocabulary has only one language.
            CheckpointError: it does not have this one.
        """
        if not self.is_multilingual:
            raise ValueError(f"target_lang is {target_lang!r}, but the vocabulary has only one language: omit it")
        self._use_vocabulary(target_lang)

    @property
    def is_multilingual(self) -> bool:
        """Whether there is a vocabulary per language."""
        return bool(self.vocab) and all(isinstance(value, dict) for value in self.vocab.values())

    def _use_vocabulary(self, target_lang: str | None) -> None:
        if target_lang is not None:
            if not self.is_multilingual or target_lang not in self.vocab:
                languages = short(sorted(self.vocab)) if self.is_multilingual else "none (the vocabulary is not nested)"
                raise CheckpointError(f"target_lang is {target_lang!r}, expected one of: {languages}")
            self.target_lang = target_lang
            self._added = {
                index: token
                for index, token in self._added.items()
                if index not in self.vocab[target_lang].values() and not self._is_of_a_language(token, index)
            }
        self.encoder: dict[str, int] = self.vocab if target_lang is None else self.vocab[target_lang]
        if self.is_multilingual and target_lang is None:
            self.encoder = {}  # nothing can be encoded before a language is chosen
        for token, index in self.encoder.items():
            if type(index) is not int or index < 0:
                raise CheckpointError(f"vocab.json: id of {token!r} is {index!r}, expected an integer of at least 0")
        self.decoder = {index: token for token, index in self.encoder.items()}
        self._added_ids = {token.content: index for index, token in self._added.items()}
        for token in self.all_special_tokens:
            self._add(AddedToken(token, special=True), replace=False)
        for token in self._kept_whole():
            self._add(AddedToken(token, lstrip=True, rstrip=True), replace=True)
        self._derive()

    def _derive(self) -> None:
        """Compute the tables of tokens that encoding and decoding use."""
        longest_first = sorted(self._added_ids, key=len, reverse=True)
        self._pieces = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._written = Written(self._writes)
        self._characters_of = Written(self._writes_in_a_word)
        vars(self).pop("_codes", None)

    def _is_of_a_language(self, token: AddedToken, index: int) -> bool:
        """Return whether a token was added since the vocabulary of a language has it."""
        return any(vocabulary.get(token.content) == index for vocabulary in self.vocab.values())

    def _kept_whole(self) -> Iterable[str]:
        """Return the tokens of several characters, which must not be split."""
        return [token for token in self.encoder if len(token) > 1]

    def _add(self, token: AddedToken, replace: bool) -> None:
        if not token.content or (token.content in self._added_ids and not replace):
            return
        index = self._added_ids.get(token.content, self.encoder.get(token.content))
        if index is None:
            index = len({*self.encoder, *self._added_ids})
        self._added[index] = token
        self._added_ids[token.content] = index

    def _add_tokens(self, tokens: Sequence[Any], special_tokens: bool) -> None:
        for token in tokens:
            text = text_of(token)
            if text not in self.encoder:
                self._add(AddedToken(text, special=special_tokens or getattr(token, "special", False)), replace=False)
        self._derive()

    def _extend_special_tokens(self, tokens: Sequence[str]) -> None:
        self.extra_special_tokens = tuple(dict.fromkeys([*self.extra_special_tokens, *tokens]))

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - of any attribute
        """Assign an attribute; a special token, such as `tokenizer.pad_token = "_"`, changes decoding."""
        name, value = self._assigned(name, value)
        is_changed = name in self.named_tokens and name in vars(self)
        super().__setattr__(name, text_of(value) if name in self.named_tokens else value)
        if is_changed:
            self._derive()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Added tokens by id."""
        return dict(sorted(self._added.items()))

    @property
    def all_special_tokens(self) -> list[str]:
        """Special tokens, the word delimiter included."""
        named = (getattr(self, name) for name in self.special_names)
        return list(dict.fromkeys(token for token in (*named, *self.extra_special_tokens) if token))

    @property
    def pad_token_id(self) -> int:
        """Id of padding, which is the CTC blank."""
        return self._id_of("pad_token", self.pad_token)

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token before texts, which the model never writes; None without one."""
        return None if self.bos_token is None else self._id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token after texts, which the model never writes; None without one."""
        return None if self.eos_token is None else self._id(self.eos_token)

    @property
    def unk_token_id(self) -> int:
        """Id of the token for unknown characters."""
        return self._id_of("unk_token", self.unk_token)

    @property
    def word_delimiter_token_id(self) -> int:
        """Id of the token between words."""
        return self._id_of("word_delimiter_token", self.word_delimiter_token)

    def _id_of(self, name: str, token: str | None) -> int:
        if token is None:
            raise CheckpointError(f"tokenizer_config.json: {name} is None, expected a token of vocab.json")
        return self._id(token)

    @property
    def vocab_size(self) -> int:
        """Number of entries of the vocabulary file."""
        return len(self.decoder)

    def get_vocab(self) -> dict[str, int]:
        """Return {token: id}, added tokens included."""
        return {**self.encoder, **self._added_ids}

    def __len__(self) -> int:
        return len(self.get_vocab())

    # Text to ids

    def _columns(
        self, texts: list[Any], *, is_split_into_words: bool, add_special_tokens: bool, limit: int | None, strategy: str
    ) -> dict[str, Rows]:
        ids = [self._ids(text, is_split_into_words) for text in texts]
        if limit is not None:
            ids = [row[:limit] if self.truncation_side == "right" else row[max(0, len(row) - limit) :] for row in ids]
        return {"input_ids": ids}

    def _ids(self, text: Any, is_split_into_words: bool) -> list[int]:  # noqa: ANN401 - a text, or its words
        words = text if is_split_into_words and not isinstance(text, str) else [text]
        return [self._id(token) for word in words for token in self.tokenize(word)]

    def tokenize(self, text: str) -> list[str]:
        """Split a text into added tokens and, for the rest, characters."""
        parts = self._pieces.split(text) if self._added else [text]
        whole = [index % 2 == 1 for index in range(len(parts))]
        for index in range(1, len(parts), 2):
            token = self._added[self._added_ids[parts[index]]]
            if token.rstrip and not whole[index + 1]:
                parts[index + 1] = parts[index + 1].lstrip()
            if token.lstrip:
                parts[index - 1] = parts[index - 1].rstrip()
        return [
            token
            for part, is_whole in zip(parts, whole, strict=True)
            if part
            for token in ([part] if is_whole else self._characters(part))
        ]

    def _characters(self, text: str) -> list[str]:
        upper = text.upper() if self.do_lower_case else text  # vocabularies are upper case where texts are lower case
        return list(upper if self.word_delimiter_token is None else upper.replace(" ", self.word_delimiter_token))

    def _id(self, token: str) -> int:
        index = self._added_ids.get(token, self.encoder.get(token))
        if index is None:
            index = self.encoder.get(self.unk_token or "", self._added_ids.get(self.unk_token or ""))
        if index is None:
            raise ValueError(f"{token!r} is not in the vocabulary, which has no unknown token either")
        return index

    def ids_of_written(self, text: str) -> list[int]:
        """Return the ids of a text as the head writes it."""
        return self._ids(text, is_split_into_words=False)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """Return the id of a token, or of each in a list."""
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Sequence[int], skip_special_tokens: bool = False) -> str | list[str]:
        """Return the token of an id, or of each in a list; unknown ids are the unknown token."""
        if isinstance(ids, int):
            return self._token(ids)
        tokens = [self._token(int(index)) for index in ids]
        dropped = {*self.all_special_tokens} if skip_special_tokens else set()
        return [token for token in tokens if token not in dropped]

    def _token(self, index: int) -> str:
        if index in self.decoder:
            return self.decoder[index]
        return self._added[index].content if index in self._added else self.unk_token or ""

    def _padding_id(self) -> int:
        return self.pad_token_id

    # Ids to text

    def decode_collapsed(self, ids: Iterable[int]) -> str:
        """Return the text of collapsed ids, without repeats and blanks (see `raysp.text.greedy_ctc.collapsed`)."""
        text = "".join(map(self._written.__getitem__, ids)).strip()
        return text.lower() if self.do_lower_case else text

    def decode_collapsed_rows(self, ids: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> list[str]:
        """Return the text of each row of collapsed ids (N,); `counts` (B,) holds the ids per row."""
        edges = [*pairwise([0, *np.cumsum(counts).tolist()])]
        is_in_range = not len(ids) or (ids.min() >= 0 and ids.max() < len(self._codes))
        if not is_in_range or not (codes := self._codes[ids]).all():
            return [self.decode_collapsed(ids[start:end].tolist()) for start, end in edges]
        written = codes.tobytes().decode("utf-32-le")
        texts = (written[start:end].strip() for start, end in edges)
        return [text.lower() if self.do_lower_case else text for text in texts]

    @cached_property
    def _codes(self) -> npt.NDArray[np.uint32]:
        """Code points of the texts of ids from 0 with distinct tokens; 0 for a text of more or less than one."""
        tokens: dict[str, int] = {}
        while (index := len(tokens)) in self.decoder or index in self._added:
            if (token := self._token(index)) in tokens:
                break
            text = self._writes(index)
            tokens[token] = ord(text) if len(text) == 1 else 0
        return np.array([*tokens.values()], np.dtype("<u4"))

    def _writes(self, index: int) -> str:
        """Return the text of an id."""
        token = self._token(index)
        if token == self.pad_token:
            return ""
        return self.replace_word_delimiter_char if token == self.word_delimiter_token else token

    def _writes_in_a_word(self, index: int) -> str:
        """Return the text of an id within a word; "" for delimiters."""
        text = self._writes(index)
        if self._token(index) == self.word_delimiter_token or text.isspace():
            return ""
        return text.lower() if self.do_lower_case else text

    @property
    def unwritten_ids(self) -> frozenset[int]:
        """Ids of special tokens that texts leave out: texts have all but the blank."""
        return frozenset()

    def written_characters(self, ids: Iterable[int]) -> list[str]:
        """Return the text of each collapsed id within a word; "" for delimiters."""
        return list(map(self._characters_of.__getitem__, ids))

    def _decode(
        self, ids: npt.NDArray[np.int64], skip_special_tokens: bool, clean: bool, group_tokens: bool = True
    ) -> str:
        """Return the text of frame-wise ids: repeats are merged (`group_tokens`), then blanks dropped.

        `skip_special_tokens` drops special tokens, blanks included, before repeats are merged: letters separated by
        blanks only are merged.
        """
        dropped = {*self.all_special_tokens} - {self.word_delimiter_token} if skip_special_tokens else set()
        tokens = [token for index in ids.tolist() if (token := self._token(index)) not in dropped]
        tokens = [token for token, _ in groupby(tokens)] if group_tokens else tokens
        text = self._joined([token for token in tokens if token != self.pad_token]).strip()
        return without_extra_spaces(text) if clean else text

    def _joined(self, tokens: Iterable[str]) -> str:
        """Return the text of tokens, of which those between words are spaces."""
        delimiter = self.word_delimiter_token
        text = "".join(self.replace_word_delimiter_char if token == delimiter else token for token in tokens)
        return text.lower() if self.do_lower_case else text

    # Files

    @classmethod
    def _read(cls, folder: Path, name: str, overrides: dict[str, Any]) -> Self:
        """Read vocab.json, tokenizer_config.json, special_tokens_map.json and added_tokens.json."""
        config = optional_json(folder / "tokenizer_config.json")
        kind = config.get("tokenizer_class") or cls.__name__
        if kind not in (cls.__name__, *cls.older_names):
            where = folder / "tokenizer_config.json"
            raise CheckpointError(
                f"{where}: tokenizer_class is {kind!r}, expected {cls.__name__!r}: texts would differ"
            )
        promoted = config.get("model_specific_special_tokens")  # as releases 5 of transformers wrote delimiters
        config = {**(promoted if isinstance(promoted, dict) else {}), **config}
        tokens = {**optional_json(folder / "special_tokens_map.json"), **config}
        names = [name for name in cls.named_tokens if name in tokens]
        options: dict[str, Any] = {name: content_of(folder, name, tokens[name]) for name in names}
        for name, option_kind in cls.option_types.items():
            if config.get(name) is not None:
                options[name] = of_kind(folder, name, config[name], option_kind)
        extra = tokens.get("extra_special_tokens") or tokens.get("additional_special_tokens") or []
        extra = of_kind(folder, "extra_special_tokens", extra, list)
        options["extra_special_tokens"] = [content_of(folder, "extra_special_tokens", token) for token in extra]
        options["added_tokens"] = read_added_tokens(folder, config)
        if OLD_SPECIAL_TOKENS in overrides:
            overrides[SPECIAL_TOKENS] = overrides.pop(OLD_SPECIAL_TOKENS)
        refuse_unknown(
            cls, overrides, [*cls.named_tokens, *cls.option_types, SPECIAL_TOKENS, "added_tokens", *SETTINGS]
        )
        settings = {key: overrides.pop(key, config.get(key)) for key in SETTINGS}
        made = cls(folder / "vocab.json", **{**options, **overrides})
        limit = settings["model_max_length"]
        made.model_max_length = int(limit) if isinstance(limit, int | float) and limit < NO_LIMIT else None
        for side in ("padding_side", "truncation_side"):
            value = "right" if settings[side] is None else settings[side]
            if value not in ("left", "right"):
                raise CheckpointError(f"{folder}: {side} is {value!r}, expected 'left' or 'right'")
            setattr(made, side, value)
        made.name_or_path = settings["name_or_path"] or name
        return made

    def _save(self, folder: Path) -> None:
        """Write vocab.json and tokenizer_config.json, and the additional files of older releases."""
        named = {name: getattr(self, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        config = {
            **named,
            "added_tokens_decoder": {str(index): vars(token) for index, token in sorted(self._added.items())},
            **self._settings(),
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "model_max_length": NO_LIMIT if self.model_max_length is None else self.model_max_length,
            "tokenizer_class": type(self).__name__,
            "word_delimiter_token": self.word_delimiter_token,
        }
        config |= {name: "left" for name in ("padding_side", "truncation_side") if getattr(self, name) == "left"}
        if self.extra_special_tokens:
            config["extra_special_tokens"] = list(self.extra_special_tokens)
        write_json(folder / "vocab.json", self.vocab)
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", {k: v for k, v in named.items() if v is not None})
        beyond = {token.content: i for i, token in self._added.items() if token.content not in self.encoder}
        if beyond:
            write_json(folder / "added_tokens.json", beyond)

    def _settings(self) -> dict[str, Any]:
        """Return the settings in tokenizer_config.json that other tokenizers do not have."""
        return {
            "do_lower_case": self.do_lower_case,
            "replace_word_delimiter_char": self.replace_word_delimiter_char,
            "target_lang": self.target_lang,
        }


def without_extra_spaces(text: str) -> str:
    """Remove the space before punctuation and English contractions."""
    for written, cleaned in (
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
        (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ):  # fmt: skip
        text = text.replace(written, cleaned)
    return text
