"""Tokenizers of text decoders: WordPiece, byte-level BPE, and any tokenizer.json.

The `tokenizers` library does the tokenization. Without a tokenizer.json, a tokenizer is made from the vocabulary:
vocab.txt (BERT), vocab.json and merges.txt (GPT-2, BART), or sentencepiece.bpe.model (mBART).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from raysp import bounds
from raysp.errors import CheckpointError
from raysp.models.base.configuration import read_json, write_json
from raysp.models.tokenizers import sentencepiece
from raysp.models.tokenizers.ctc import without_extra_spaces
from raysp.models.tokenizers.described import (
    NO_LIMIT,
    TOKENIZER_FILE,
    Added,
    DescribedTokenizer,
    Rows,
    class_of_model,
    content_of,
    optional_json,
    refuse_unknown,
    text_of,
    unknown_attribute,
)
from raysp.models.tokenizers.sentencepiece import NO_TOKENIZER

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SETTINGS = ("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces", "name_or_path")
OF_KINDS = (
    *("tokenizer_class", "add_prefix_space", "trim_offsets", "do_lower_case", "tokenize_chinese_chars"),
    *("strip_accents", "src_lang"),
)
"""Arguments of `from_pretrained` that a tokenizer is made with if there is no tokenizer.json."""
Options = Mapping[str, Any]


def _word_pieces(folder: Path, options: Options) -> Tokenizer:
    """Make BERT's tokenizer from vocab.txt, with one token per line."""
    vocab = {token: index for index, token in enumerate(_lines(folder / "vocab.txt"))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=options["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    cls, sep = options["cls_token"], options["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, _id(folder, vocab, token)) for token in (cls, sep)],
    )
    return tokenizer


def _byte_pairs(folder: Path, options: Options) -> Tokenizer:
    """Make GPT-2's tokenizer from vocab.json and merges.txt."""
    merges = [tuple(line.split(" ")) for line in _lines(folder / "merges.txt") if line and not line.startswith("#ver")]
    if any(len(pair) != 2 for pair in merges):
        raise CheckpointError(f"{folder / 'merges.txt'}: a line is not a pair of tokens: copy the file again")
    vocab = read_json(folder / "vocab.json")
    tokenizer = Tokenizer(models.BPE(vocab, merges, fuse_unk=False))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=options.get("add_prefix_space", False))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_pairs_between_ends(folder: Path, options: Options) -> Tokenizer:
    """Make BART's tokenizer: GPT-2's, with <s> before and </s> after a text."""
    tokenizer = _byte_pairs(folder, options)
    vocab = tokenizer.get_vocab()
    cls, sep = options["cls_token"], options["sep_token"]
    tokenizer.post_processor = processors.RobertaProcessing(
        (sep, _id(folder, vocab, sep)),
        (cls, _id(folder, vocab, cls)),
        trim_offsets=options.get("trim_offsets", True),
        add_prefix_space=options.get("add_prefix_space", False),
    )
    return tokenizer


def _not_without_json(folder: Path, options: Options) -> Tokenizer:
    raise CheckpointError(
        f"{folder}: {TOKENIZER_FILE} not found, which this tokenizer needs: create it with transformers' "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
    )


@dataclass(frozen=True)
class Kind:
    """Properties of one class of tokenizers."""

    tokens: Mapping[str, str]
    make: Callable[[Path, Options], Tokenizer] = _not_without_json
    has_types: bool = False
    mask_takes_space: bool = False


BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
GPT2_TOKENS = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
BART_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
KINDS = {  # tokenizer_class, without "Fast" -> kind
    "BertTokenizer": Kind(BERT_TOKENS, _word_pieces, has_types=True),
    "GPT2Tokenizer": Kind(GPT2_TOKENS, _byte_pairs),
    "BartTokenizer": Kind(BART_TOKENS, _byte_pairs_between_ends),
    "RobertaTokenizer": Kind(BART_TOKENS, _byte_pairs_between_ends),
    "MBartTokenizer": Kind(BART_TOKENS, sentencepiece.mbart, mask_takes_space=True),
    "MBart50Tokenizer": Kind(BART_TOKENS, sentencepiece.mbart50, mask_takes_space=True),
    "ParakeetTokenizer": Kind({"unk_token": "<unk>", "pad_token": "<pad>"}),
    "LasrTokenizer": Kind({"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}),
    "PreTrainedTokenizer": Kind({}),
    "TokenizersBackend": Kind({}),
}


class TextTokenizer(DescribedTokenizer):
    """A tokenizer of texts.

    Args:
        backend: Tokenizer of the `tokenizers` library.
        tokenizer_class: Name of the class in transformers, see `KINDS`.
        model_max_length: Number of tokens that `truncation=True` cuts at; None: no limit.
        padding_side: "right" or "left".
        truncation_side: The same, where `truncation=True` cuts.
        clean_up_tokenization_spaces: Remove spaces before punctuation when decoding; ignored for BPE.
        tokens: `bos_token`, `eos_token`, `unk_token`, `sep_token`, `pad_token`, `cls_token`, `mask_token` by name.
    """

    is_fast = True
    named_tokens = NAMED_TOKENS

    def __init__(
        self,
        backend: Tokenizer,
        tokenizer_class: str = "TokenizersBackend",
        *,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = False,
        **tokens: str | None,
    ) -> None:
        unknown = sorted(set(tokens) - set(NAMED_TOKENS))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} given, expected names among {', '.join(NAMED_TOKENS)}")
        self.backend = backend
        self.backend.no_padding()
        self.backend.no_truncation()
        self.tokenizer_class = tokenizer_class
        self.kind = KINDS[tokenizer_class.removesuffix("Fast")]
        self.model_max_length = model_max_length
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.tokens: dict[str, str | None] = {**dict.fromkeys(NAMED_TOKENS), **tokens}
        self._add_named_tokens()

    def _add_named_tokens(self) -> None:
        present = {token.content for token in self.backend.get_added_tokens_decoder().values()}
        for name, token in self.tokens.items():
            if token is not None and token not in present:
                takes_space = name == "mask_token" and self.kind.mask_takes_space
                self.backend.add_special_tokens([AddedToken(token, lstrip=takes_space, special=True, normalized=False)])

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a token, or its id
        """Return a special token (`pad_token`) or its id (`pad_token_id`); None if unset."""
        tokens = self.__dict__.get("tokens", {})
        if name in tokens:
            return tokens[name]
        if name.endswith("_id") and name.removesuffix("_id") in tokens:
            token = tokens[name.removesuffix("_id")]
            return None if token is None else self.backend.token_to_id(token)
        raise AttributeError(unknown_attribute(type(self), name))

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Assign an attribute; `tokenizer.pad_token = "<pad>"` adds a special token."""
        name, value = self._assigned(name, value)
        if name in NAMED_TOKENS:
            self.tokens[name] = text_of(value)
            self._add_named_tokens()
        else:
            super().__setattr__(name, value)

    @property
    def model_input_names(self) -> tuple[str, ...]:
        """Names of the values that a call returns."""
        return ("input_ids", *(("token_type_ids",) if self.kind.has_types else ()), "attention_mask")

    @property
    def all_special_tokens(self) -> list[str]:
        """Special tokens, named tokens first."""
        added = [token.content for token in self.backend.get_added_tokens_decoder().values() if token.special]
        return list(dict.fromkeys([*(token for token in self.tokens.values() if token is not None), *added]))

    @property
    def added_tokens_decoder(self) -> Mapping[int, Added]:
        """Added tokens by id."""
        return self.backend.get_added_tokens_decoder()

    def _add_tokens(self, tokens: Sequence[Any], special_tokens: bool) -> None:
        add = self.backend.add_special_tokens if special_tokens else self.backend.add_tokens
        add([*tokens])

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary without added tokens."""
        return self.backend.get_vocab_size(with_added_tokens=False)

    def get_vocab(self) -> dict[str, int]:
        """Return {token: id}, added tokens included."""
        return self.backend.get_vocab(with_added_tokens=True)

    def __len__(self) -> int:
        return self.backend.get_vocab_size(with_added_tokens=True)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:  # noqa: ANN401 - an id, or a list of them
        """Return the id of a token, or of each in a list; unknown tokens have the id of the unknown token."""
        if isinstance(tokens, str):
            index = self.backend.token_to_id(tokens)
            return self.unk_token_id if index is None else index
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Sequence[int], skip_special_tokens: bool = False) -> Any:  # noqa: ANN401 - a token, or a list of them
        """Return the token of an id, or of each in a list."""
        if isinstance(ids, int):
            return self.backend.id_to_token(ids)
        dropped = {*self.all_special_ids} if skip_special_tokens else set()
        return [self.backend.id_to_token(int(index)) for index in ids if int(index) not in dropped]

    def tokenize(self, text: str) -> list[str]:
        """Split a text into tokens, without special tokens around it."""
        return self.backend.encode(text, add_special_tokens=False).tokens

    # Text to ids

    def _columns(
        self, texts: list[Any], *, is_split_into_words: bool, add_special_tokens: bool, limit: int | None, strategy: str
    ) -> dict[str, Rows]:
        if limit is not None:
            self.backend.enable_truncation(limit, strategy=strategy, direction=self.truncation_side)
        try:
            encodings = self.backend.encode_batch(
                texts, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
            )
        finally:
            self.backend.no_truncation()
        columns = {"input_ids": [encoding.ids for encoding in encodings]}
        if self.kind.has_types:
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        return columns

    def _padding_id(self) -> int:
        if self.pad_token_id is None:
            raise ValueError("texts differ in length and there is no pad_token: set tokenizer.pad_token")
        return int(self.pad_token_id)

    # Ids to text

    def _decode(self, ids: npt.NDArray[np.int64], skip_special_tokens: bool, clean: bool) -> str:
        text = self.backend.decode(ids.tolist(), skip_special_tokens=skip_special_tokens)
        return without_extra_spaces(text) if clean and not isinstance(self.backend.model, models.BPE) else text

    # Files

    @classmethod
    def _read(cls, folder: Path, name: str, overrides: dict[str, Any]) -> Self:
        """Read tokenizer.json, or the vocabulary, and tokenizer_config.json.

        Raises:
            CheckpointError: Files are missing or damaged, or the class is not one of `KINDS`.
        """
        refuse_unknown(cls, overrides, [*NAMED_TOKENS, *SETTINGS, *OF_KINDS])
        config = optional_json(folder / "tokenizer_config.json")
        named = overrides.pop("tokenizer_class", None) or config.get("tokenizer_class") or class_of_model(folder)
        kind = KINDS.get(str(named).removesuffix("Fast"))
        if kind is None:
            raise CheckpointError(f"{folder}: tokenizer_class is {named!r}, expected one of {', '.join(sorted(KINDS))}")
        stated = {**optional_json(folder / "special_tokens_map.json"), **config, **overrides}
        tokens = {key: content_of(folder, key, text_of(stated[key])) for key in NAMED_TOKENS if key in stated}
        tokens = {**kind.tokens, **tokens}
        if (folder / TOKENIZER_FILE).is_file():
            backend = _read_backend(folder / TOKENIZER_FILE)
        else:
            backend = kind.make(folder, {**config, **overrides, **tokens})
        limit = stated.get("model_max_length")
        made = cls(
            backend,
            str(named),
            model_max_length=int(limit) if isinstance(limit, int | float) and limit < NO_LIMIT else None,
            padding_side=str(stated.get("padding_side", "right")),
            truncation_side=str(stated.get("truncation_side", "right")),
            clean_up_tokenization_spaces=bool(stated.get("clean_up_tokenization_spaces", False)),
            **tokens,
        )
        made.name_or_path = overrides.get("name_or_path", name)
        return made

    def _save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json, which transformers can read."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / TOKENIZER_FILE))
        named = {name: token for name, token in self.tokens.items() if token is not None}
        config = {
            **named,
            **self._settings(),
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "model_max_length": NO_LIMIT if self.model_max_length is None else self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "tokenizer_class": self.tokenizer_class,
        }
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", named)

    def _settings(self) -> dict[str, Any]:
        """Return the settings that transformers needs in addition to the vocabulary."""
        before, normalizer = self.backend.pre_tokenizer, self.backend.normalizer
        if isinstance(before, pre_tokenizers.ByteLevel):
            return {"add_prefix_space": before.add_prefix_space}
        if isinstance(normalizer, normalizers.BertNormalizer):
            return {
                "do_lower_case": normalizer.lowercase,
                "strip_accents": normalizer.strip_accents,
                "tokenize_chinese_chars": normalizer.handle_chinese_chars,
            }
        return {}


def _read_backend(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(bounds.read_file(path, bounds.MOST_TOKENIZER_BYTES))
    except Exception as error:  # the library raises plain Exception for any fault
        raise CheckpointError(f"{path}: not a tokenizer ({bounds.plain(error)}): copy the file again") from error


def _lines(path: Path) -> list[str]:
    try:
        text = bounds.read_file(path, bounds.MOST_TOKENIZER_BYTES).decode()
        return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not found, nor {TOKENIZER_FILE}: {NO_TOKENIZER}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}): copy the file again") from error


def _id(folder: Path, vocab: Mapping[str, int], token: str) -> int:
    if token not in vocab:
        raise CheckpointError(f"{folder}: special token {token!r} is not in the vocabulary: save the tokenizer again")
    return vocab[token]
