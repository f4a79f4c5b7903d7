"""Parts of tokenizers: tokens in their files, text of ids, and attributes that programs for transformers read."""

import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, cast

import numpy as np

from raysp.errors import CheckpointError
from raysp.models.base.batches import BatchFeature, on_host, padded_length, tensors_of, truncates
from raysp.models.base.configuration import Shareable, read_json
from raysp.words import suggestion

Rows = list[list[int]]
PADDED_WITH_0 = ("token_type_ids", "attention_mask")


def _is_left(side: str) -> bool:
    if side not in ("left", "right"):
        raise ValueError(f"padding_side is {side!r}, expected 'left' or 'right'")
    return side == "left"


def _filled(rows: Rows, missing: list[int], value: int, left: bool) -> Rows:
    return [[value] * n + row if left else row + [value] * n for row, n in zip(rows, missing, strict=True)]


def _is_row(value: Any) -> bool:  # noqa: ANN401 - a row, or one id
    """Return whether a value is a list, array or tensor of ids; an id of an array or tensor has no axes."""
    return hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def _by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of rows by the names that every row has."""
    if not rows:
        return {"input_ids": []}
    return {name: [row[name] for row in rows] for name in rows[0] if all(name in row for row in rows)}


def _rows(values: Any) -> Rows:  # noqa: ANN401 - rows as lists, arrays or tensors
    return [list(map(int, row)) for row in values]


NO_LIMIT = 1000000000000000019884624838656  # written by transformers for "any length"
SPECIAL_TOKENS = "extra_special_tokens"
OLD_SPECIAL_TOKENS = "additional_special_tokens"  # their name before transformers 5
NOT_RETURNED = {
    "return_overflowing_tokens": "cut the ids of the whole text",
    "return_offsets_mapping": "of a text tokenizer, tokenizer.backend.encode(text).offsets has them",
    "return_special_tokens_mask": "compare the ids with tokenizer.all_special_ids",
    "return_length": "count the input_ids",
    "stride": "cut the ids of the whole text",
}
"""Keywords of a call that are refused, with a remedy."""


class Added(Protocol):
    """A token that is never split, of raysp or of the `tokenizers` library."""

    @property
    def content(self) -> str:
        """Text of the token."""


class DescribedTokenizer(Shareable):
    """Base of tokenizers of CTC models and of text decoders."""

    padding_side: str = "right"
    is_fast: ClassVar[bool] = False
    """Whether the `tokenizers` library splits texts."""
    is_of_ctc: ClassVar[bool] = False
    """Whether it reads the ids of a CTC head: a `CTCTokenizer`."""
    pad_token_type_id: ClassVar[int] = 0
    named_tokens: ClassVar[tuple[str, ...]]
    """Names of special tokens, which are attributes."""
    name_or_path: str = ""
    """Folder or hub id that the tokenizer was read from."""
    truncation_side: str = "right"
    clean_up_tokenization_spaces: bool
    """Whether decoding removes spaces before punctuation."""
    model_max_length: int | None
    """Number of tokens at which `truncation=True` cuts; None: no limit."""

    @abstractmethod
    def get_vocab(self) -> dict[str, int]:
        """Return {token: id}, added tokens included."""

    @property
    @abstractmethod
    def all_special_tokens(self) -> list[str]:
        """Tokens that are not text."""

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of `all_special_tokens`."""
        vocab = self.get_vocab()
        return [vocab[token] for token in self.all_special_tokens]

    @property
    @abstractmethod
    def added_tokens_decoder(self) -> Mapping[int, Added]:
        """Added tokens by id."""

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """Special tokens by name, without unset ones."""
        special = self.all_special_tokens
        named = {name: getattr(self, name) for name in self.named_tokens if getattr(self, name) in special}
        unnamed = [token for token in special if token not in named.values()]
        return {
            **{name: token for name, token in named.items() if token},
            **({SPECIAL_TOKENS: unnamed} if unnamed else {}),
        }

    # Text to ids

    def __call__(
        self,
        text: Any,  # noqa: ANN401 - a text or a list of texts
        **options: Any,  # noqa: ANN401 - options of `_encoded`
    ) -> BatchFeature:
        """Return `input_ids` and `attention_mask` of a text, or of each in a list."""
        for name, way_out in NOT_RETURNED.items():
            if options.pop(name, None):
                raise ValueError(f"{name} given, which tokenizers of raysp do not return: omit it; {way_out}")
        options.pop("verbose", None)
        return self._encoded(text, **options)

    def _encoded(
        self,
        text: Any,  # noqa: ANN401 - a text, a list of words, or a list of texts
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        is_split_into_words: bool = False,
        padding_side: str | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Return `input_ids`, `attention_mask` and, for BERT, `token_type_ids` of a text, or of each in a list.

        `truncation` cuts at `max_length`, or else at the tokenizer's limit. By default a text is cut at a given
        `max_length` unless it is padded. With `is_split_into_words` a text is a list of words; ids of a CTC head follow
        each other without a delimiter, as in transformers 5.
        """
        is_single = isinstance(text, str) or (is_split_into_words and all(isinstance(word, str) for word in text))
        limit = self.model_max_length if max_length is None and truncation is not None else max_length
        columns = self._columns(
            [text] if is_single else list(text),
            is_split_into_words=is_split_into_words,
            add_special_tokens=add_special_tokens,
            limit=limit if truncates(truncation, padding) else None,
            strategy="longest_first" if truncation in (None, True) else str(truncation),
        )
        batch = self.pad(
            columns,
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
        )
        if is_single and return_tensors is None:
            return BatchFeature({name: rows[0] for name, rows in batch.items()})
        return tensors_of(batch, return_tensors)

    @abstractmethod
    def _padding_id(self) -> int:
        """Return the id of the padding token; raise where there is no such token."""

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool = True,
        return_tensors: str | None = None,
        *,
        padding_side: str | None = None,
        verbose: bool = True,
    ) -> BatchFeature:
        """Pad lists of ids, their token types and masks to one length; `attention_mask` is 0 at padding.

        Other values, such as labels of rows, stay as they are. `verbose` has no effect.
        """
        columns = encoded_inputs if isinstance(encoded_inputs, Mapping) else _by_name(encoded_inputs)
        if "input_ids" not in columns:
            names = ", ".join(columns) or "no values"
            raise ValueError(f"rows have {names}, expected input_ids, which a tokenizer pads")
        if is_one := len(columns["input_ids"]) > 0 and not _is_row(columns["input_ids"][0]):
            columns = {name: [value] for name, value in columns.items()}
        rows = _rows(columns["input_ids"])
        target = padded_length(list(map(len, rows)), padding, max_length, pad_to_multiple_of)
        missing = [max(0, (target or 0) - len(row)) for row in rows]
        left = _is_left(self.padding_side if padding_side is None else padding_side)
        padded: dict[str, Any] = dict(columns)
        padded["input_ids"] = _filled(rows, missing, self._padding_id() if any(missing) else 0, left)
        padded |= {name: _filled(_rows(columns[name]), missing, 0, left) for name in PADDED_WITH_0 if name in columns}
        if not return_attention_mask:
            padded.pop("attention_mask", None)
        elif "attention_mask" not in columns:
            padded["attention_mask"] = _filled([[1] * len(row) for row in rows], missing, 0, left)
        if is_one:
            padded = {name: values[0] for name, values in padded.items()}
        return tensors_of(padded, return_tensors)

    @abstractmethod
    def _columns(
        self, texts: list[Any], *, is_split_into_words: bool, add_special_tokens: bool, limit: int | None, strategy: str
    ) -> dict[str, Rows]:
        """Return `input_ids` of texts, and other columns of the class, of at most `limit` tokens a text."""

    def encode(self, text: Any, **options: Any) -> Any:  # noqa: ANN401 - ids, or a tensor of them
        """Return the ids of one text; options as for a call."""
        return self(text, **options)["input_ids"]

    # Ids to text

    @abstractmethod
    def _decode(self, *ids: Any, **options: Any) -> Any:  # noqa: ANN401
        """Return the text of ids (N,), optionally without special tokens, or without spaces before punctuation."""

    def decode(
        self,
        token_ids: Any,  # noqa: ANN401 - ids, or an array or tensor of them, or several
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **options: Any,  # noqa: ANN401 - options of `_decode`
    ) -> Any:  # noqa: ANN401 - a text, or several
        """Return the text of ids; of several rows of ids the texts, as `batch_decode`."""
        clean = clean_up_tokenization_spaces
        clean = self.clean_up_tokenization_spaces if clean is None else clean
        ids = on_host(token_ids)
        if isinstance(ids, list | tuple | np.ndarray) and _is_row(ids) and len(ids) > 0 and _is_row(ids[0]):
            shared = {"skip_special_tokens": skip_special_tokens, "clean_up_tokenization_spaces": clean}
            return self.batch_decode(ids, **shared, **options)
        return self._decode(np.asarray(ids, dtype=np.int64).reshape(-1), skip_special_tokens, clean, **options)

    def batch_decode(self, sequences: Any, **options: Any) -> Any:  # noqa: ANN401 - as for decode
        """Decode each row of ids; options as for `decode`."""
        return [self.decode(ids, **options) for ids in on_host(sequences)]

    # Tokens

    def _assigned(self, name: str, value: Any) -> tuple[str, Any]:  # noqa: ANN401 - of any attribute
        """Return the attribute that an assignment sets, with its value: of `pad_token_id` the token."""
        token = name.removesuffix("_id")
        if token == name or token not in self.named_tokens:
            return name, value
        return token, None if value is None else self.convert_ids_to_tokens(int(value))

    @abstractmethod
    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:  # noqa: ANN401 - ids, tokens
        """Return the token of an id, or of each in a list."""

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:  # noqa: ANN401 - a token or several
        """Append tokens, and return how many are new."""
        before = len(self.get_vocab())
        self._add_tokens(new_tokens if isinstance(new_tokens, list | tuple) else [new_tokens], special_tokens)
        return len(self.get_vocab()) - before

    @abstractmethod
    def _add_tokens(self, tokens: Sequence[Any], special_tokens: bool) -> None:
        """Add tokens at the end of the vocabulary."""

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Set special tokens by name, and return how many are new.

        Raises:
            ValueError: A name does not belong to a special token.
        """
        names = (*self.named_tokens, SPECIAL_TOKENS, OLD_SPECIAL_TOKENS)
        if unknown := [name for name in special_tokens_dict if name not in names]:
            raise ValueError(f"{', '.join(unknown)} given, expected names among {', '.join(names)}")
        before = len(self.get_vocab())
        for name, value in special_tokens_dict.items():
            self.add_tokens(value, special_tokens=True)
            if name in self.named_tokens:
                setattr(self, name, text_of(value))
            else:
                self._extend_special_tokens([text_of(token) for token in value])
        return len(self.get_vocab()) - before

    def _extend_special_tokens(self, tokens: Sequence[str]) -> None:
        """Note special tokens without a name."""

    if not TYPE_CHECKING:  # so that type checkers find names that do not exist

        def __getattr__(self, name: str) -> NoReturn:
            """Raise AttributeError with a similar name, if there is one."""
            raise AttributeError(unknown_attribute(type(self), name))


def unknown_attribute(cls: type, name: str) -> str:
    """Return the message for an attribute that a class of tokenizers lacks."""
    return f"{cls.__name__} has no {name!r}{suggestion(name, [public for public in dir(cls) if public[0] != '_'])}"


def text_of(token: Any) -> Any:  # noqa: ANN401 - a string, None, or an object with the text as `content`
    """Return the text of a token, or None."""
    return getattr(token, "content", token)


def refuse_unknown(cls: type, arguments: Mapping[str, Any], settings: Sequence[str]) -> None:
    """Raise TypeError for arguments of `from_pretrained` that a tokenizer does not have."""
    if unknown := [name for name in arguments if name not in settings]:
        named = ", ".join(f"{name!r}{suggestion(name, settings)}" for name in unknown)
        raise TypeError(f"{named}: no setting of {cls.__name__}, which has {', '.join(settings)}")


TOKENIZER_FILE = "tokenizer.json"
PLAIN, PHONEMES = "Wav2Vec2CTCTokenizer", "Wav2Vec2PhonemeCTCTokenizer"
PIECES, TEXT = "ParakeetTokenizer", "TextTokenizer"
CLASS_OF = {  # model_type -> tokenizer_class, if tokenizer_config.json has none
    "bert": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "bart": "BartTokenizer",
    "mbart": "MBartTokenizer",
    "parakeet_ctc": PIECES,
    "parakeet_rnnt": PIECES,
    "parakeet_tdt": PIECES,
    "granite_speech5_ctc": PIECES,
    "lasr_ctc": PIECES,
    "omniasr_ctc": PIECES,
}
BLANKS: Mapping[str, int | None] = {"granite_speech5_ctc": None, "lasr_ctc": None, "omniasr_ctc": 0}
"""Model types whose texts have no special tokens, with the usual id of the blank; None: it is the padding token."""


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
    """Return the added tokens by id, in the format of transformers 4.34, or of earlier releases."""
    if "added_tokens_decoder" in config:
        stored = config["added_tokens_decoder"]
        entries = [(index, token) for index, token in of_kind(folder, "added_tokens_decoder", stored, dict).items()]
    else:
        stored = optional_json(folder / "added_tokens.json")
        entries = [(index, {"content": token}) for token, index in stored.items()]
    flags = [name for name in AddedToken.__dataclass_fields__ if name != "content"]
    added = {}
    for index, token in entries:
        if not str(index).isdecimal() or not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise CheckpointError(f"{folder}: added token {index!r} is {token!r}, expected an id and its content")
        added[int(index)] = AddedToken(token["content"], **{name: bool(token.get(name, False)) for name in flags})
    return added


def class_named(folder: Path) -> str:
    """Return the class of a checkpoint's tokenizer, by its name in the files or else by the model."""
    named = optional_json(folder / "tokenizer_config.json").get("tokenizer_class")
    by_model = class_of_model(folder)
    names_head = str(named).startswith(("Wav2Vec2", "Parakeet"))
    if str(named if names_head else by_model).startswith("Parakeet"):
        return PIECES
    if (optional_json(folder / "config.json").get("tokenizer_class") if named is None else named) == PHONEMES:
        return PHONEMES
    name = named or by_model
    return PLAIN if name is None or str(name).startswith("Wav2Vec2") else TEXT


def class_of_model(folder: Path) -> str | None:
    """Return the tokenizer's class by the type of the model or of its decoder."""
    config = optional_json(folder / "config.json")
    decoder = config.get("decoder")
    model_type = (decoder if isinstance(decoder, dict) else config).get("model_type")
    name = CLASS_OF.get(str(model_type))
    return name or ("TokenizersBackend" if (folder / TOKENIZER_FILE).is_file() else None)


FORMS = ("{}", "<|{}|>", "<{}>", "[{}]", "__{}__", "<2{}>", ">>{}<<")
"""Spellings of a name: as it is, of Whisper and GPT-2, of T5 and custom tokens, of BERT, of M2M-100, of MADLAD, of
Marian."""
WITH_REGION = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]+")
"""Languages of mBART and NLLB, such as "de_DE" and "deu_Latn"."""
MOST_NAMED = 12


def token_of(name: str, field: str, vocabulary: Mapping[str, int], special: Sequence[str]) -> int:
    """Return the id of the token that a name stands for.

    A word of letters only counts as it is if it is a special token, since "de" may be a piece of a word; "de" also
    stands for "de_DE".

    Args:
        name: such as "de", "de_DE", "<|de|>" or "translate".
        field: name of the setting, for the message.
        vocabulary: ids by token.
        special: special tokens of the tokenizer.

    Raises:
        CheckpointError: the vocabulary has no such token, or several.
    """
    spelled = [form.format(name) for form in FORMS if form != "{}" or name in special or not name.isalnum()]
    tokens = [token for token in spelled if token in vocabulary]
    tokens = tokens or [token for token in vocabulary if WITH_REGION.fullmatch(token) and token.startswith(f"{name}_")]
    if len(tokens) == 1:
        return vocabulary[tokens[0]]
    if tokens:
        raise CheckpointError(f"{field}={name!r} stands for {', '.join(map(repr, sorted(tokens)))}; give one of them")
    candidates = [token for token in vocabulary if WITH_REGION.fullmatch(token)]
    candidates = candidates or [token for token in special if re.fullmatch(r"\W{1,2}\w+\W{1,2}", token)]
    listed = ", ".join(map(repr, sorted(candidates)[:MOST_NAMED])) or "no token of a language or task"
    raise CheckpointError(f"{field}={name!r} is not a token of the decoder's vocabulary; it has {listed}")


def is_language(token: str) -> bool:
    """Return whether a token is a language in the spelling of mBART."""
    return WITH_REGION.fullmatch(token) is not None


BLANK = "<blank>"
"""Blank among the tokens of transducers; for CTC it is the padding token."""


class Written(dict[int, str]):
    """Cache of the text of each id."""

    def __init__(self, find: Callable[[int], str]) -> None:
        super().__init__()
        self.find = find

    def __missing__(self, index: int) -> str:
        self[index] = self.find(index)
        return self[index]
