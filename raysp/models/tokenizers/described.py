"""Attributes of tokenizers that programs written for transformers read, derived from the vocabulary; and padding."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

from raysp.models.base.batches import BatchFeature, padded_length, tensors_of
from raysp.models.files.configuration import suggestion
from raysp.models.files.sharing import Shareable

Rows = list[list[int]]
PADDED_WITH_0 = ("token_type_ids", "attention_mask")


class PaddingTokenizer(ABC):
    """A tokenizer whose lists of ids can be padded to one length."""

    padding_side: str = "right"

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
        given = encoded_inputs if isinstance(encoded_inputs, Mapping) else _columns(encoded_inputs)
        if "input_ids" not in given:
            raise ValueError(f"rows have {', '.join(given) or 'no values'}, expected input_ids, which a tokenizer pads")
        if is_one := len(given["input_ids"]) > 0 and not _is_row(given["input_ids"][0]):
            given = {name: [value] for name, value in given.items()}
        rows = _rows(given["input_ids"])
        target = padded_length(list(map(len, rows)), padding, max_length, pad_to_multiple_of)
        missing = [max(0, (target or 0) - len(row)) for row in rows]
        left = _is_left(self.padding_side if padding_side is None else padding_side)
        padded: dict[str, Any] = dict(given)
        padded["input_ids"] = _filled(rows, missing, self._padding_id() if any(missing) else 0, left)
        padded |= {name: _filled(_rows(given[name]), missing, 0, left) for name in PADDED_WITH_0 if name in given}
        if not return_attention_mask:
            padded.pop("attention_mask", None)
        elif "attention_mask" not in given:
            padded["attention_mask"] = _filled([[1] * len(row) for row in rows], missing, 0, left)
        if is_one:
            padded = {name: values[0] for name, values in padded.items()}
        return tensors_of(padded, return_tensors)


def _is_left(side: str) -> bool:
    if side not in ("left", "right"):
        raise ValueError(f"padding_side is {side!r}, expected 'left' or 'right'")
    return side == "left"


def _filled(rows: Rows, missing: list[int], value: int, left: bool) -> Rows:
    return [[value] * n + row if left else row + [value] * n for row, n in zip(rows, missing, strict=True)]


def _is_row(value: Any) -> bool:  # noqa: ANN401 - a row, or one id
    """Return whether a value is a list, array or tensor of ids; an id of an array or tensor has no axes."""
    return hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of rows by their names, those that every row has."""
    if not rows:
        return {"input_ids": []}
    return {name: [row[name] for row in rows] for name in rows[0] if all(name in row for row in rows)}


def _rows(values: Any) -> Rows:  # noqa: ANN401 - rows as lists, arrays or tensors
    return [list(map(int, row)) for row in values]


NO_LIMIT = 1000000000000000019884624838656  # what transformers writes for "any length"
SPECIAL_TOKENS = "extra_special_tokens"
OLD_SPECIAL_TOKENS = "additional_special_tokens"  # their name before transformers 5
NOT_RETURNED = {
    "return_overflowing_tokens": "cut the ids of the whole text",
    "return_offsets_mapping": "of a text tokenizer, tokenizer.backend.encode(text).offsets has them",
    "return_special_tokens_mask": "call tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)",
    "return_length": "count the input_ids",
    "stride": "cut the ids of the whole text",
}
"""Keywords of a call that are refused, with a remedy."""
REFUSED = {
    "apply_chat_template": "models of speech have no chats",
    "register_for_auto_class": "code that comes with a checkpoint is never run: import the class in the program",
    "train_new_from_iterator": "write a vocab.json, or train with the `tokenizers` library",
    "prepare_for_model": "call tokenizer(text), or tokenizer.pad({'input_ids': ids})",
    "truncate_sequences": "pass truncation=True and max_length to the call",
    "build_inputs_with_special_tokens": "call tokenizer(text), which adds them",
    "create_token_type_ids_from_sequences": "call tokenizer(text, text_pair), which returns token_type_ids",
    "backend_tokenizer": "`backend` of a text tokenizer is the tokenizer of the `tokenizers` library",
    "as_target_tokenizer": "call tokenizer(text_target=texts)",
}
"""Names of transformers that raysp does not have, with a remedy."""


class Added(Protocol):
    """A token that is never split, of raysp or of the `tokenizers` library."""

    @property
    def content(self) -> str:
        """Text of the token."""
        ...


class DescribedTokenizer(PaddingTokenizer, Shareable):
    """Base of tokenizers of CTC models and of text decoders."""

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
    def added_tokens_encoder(self) -> dict[str, int]:
        """Ids of added tokens."""
        return {token.content: index for index, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """Return the ids of added tokens."""
        return self.added_tokens_encoder

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """Special tokens by name, those that are set."""
        special = self.all_special_tokens
        named = {name: getattr(self, name) for name in self.named_tokens if getattr(self, name) in special}
        others = [token for token in special if token not in named.values()]
        return {
            **{name: token for name, token in named.items() if token},
            **({SPECIAL_TOKENS: others} if others else {}),
        }

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a name, by their attribute before transformers 5."""
        found: list[str] = self.special_tokens_map.get(SPECIAL_TOKENS, [])
        return found

    @property
    def max_len_single_sentence(self) -> int:
        """Number of tokens of the longest text, without special ones around it."""
        return (NO_LIMIT if self.model_max_length is None else self.model_max_length) - self.num_special_tokens_to_add()

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return the number of special tokens that a call puts around a text."""
        return 0

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for each id of a special token, else 0.

        Raises:
            ValueError: The ids have no special tokens yet, which a call adds.
        """
        if token_ids_1 is None and not already_has_special_tokens and not self.num_special_tokens_to_add():
            return [0] * len(token_ids_0)
        if token_ids_1 is not None or not already_has_special_tokens:
            raise ValueError("expected the ids of one call, and already_has_special_tokens=True")
        special = {*self.all_special_ids}
        return [int(index in special) for index in token_ids_0]

    # Text to ids

    @abstractmethod
    def _encoded(self, *texts: Any, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Return the ids of texts, and of those that follow them, for a call."""

    def __call__(
        self,
        text: Any = None,  # noqa: ANN401 - a text or a list of texts
        text_pair: Any = None,  # noqa: ANN401 - the same, to follow
        text_target: Any = None,  # noqa: ANN401 - the same, for `labels`
        **options: Any,  # noqa: ANN401 - those of `_encoded`
    ) -> BatchFeature:
        """Return `input_ids` and `attention_mask` of a text, or of each in a list; with `text_target` also `labels`.

        Of `text_target` alone the ids are `input_ids`, as in transformers.
        """
        for name, way_out in NOT_RETURNED.items():
            if options.pop(name, None):
                raise ValueError(f"{name} given, which tokenizers of raysp do not return: omit it; {way_out}")
        options.pop("verbose", None)
        if text is None and text_target is None:
            raise ValueError("neither text nor text_target given, expected a text or a list of texts")
        if text is None:
            return self._encoded(text_target, **options)
        batch = self._encoded(text, text_pair, **options)
        if text_target is not None:
            batch["labels"] = self._encoded(text_target, **options)["input_ids"]
        return batch

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:  # noqa: ANN401 - ids, or a tensor of them
        """Return the ids of one text; options as for a call."""
        return self(text, text_pair, **options)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Call the tokenizer, by a name before transformers 5."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **options: Any) -> BatchFeature:  # noqa: ANN401
        """Call the tokenizer with a list of texts, by a name before transformers 5."""
        return self(batch_text_or_text_pairs, **options)

    # Tokens

    @abstractmethod
    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:  # noqa: ANN401 - a token or several
        """Add tokens behind the others, and return how many are new."""

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Set special tokens by name, add those that are new, and return how many.

        Raises:
            ValueError: A name is not that of a special token.
        """
        known = (*self.named_tokens, SPECIAL_TOKENS, OLD_SPECIAL_TOKENS)
        if unknown := [name for name in special_tokens_dict if name not in known]:
            raise ValueError(f"{', '.join(unknown)} given, expected names among {', '.join(known)}")
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

    # Files

    @abstractmethod
    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the files of the vocabulary alone, and return their paths."""

    if not TYPE_CHECKING:  # so that type checkers find names that do not exist

        def __getattr__(self, name: str) -> NoReturn:
            """Raise AttributeError with a remedy, or a similar name."""
            raise AttributeError(unknown_attribute(type(self), name))


def unknown_attribute(cls: type, name: str) -> str:
    """Return the message for an attribute that a class of tokenizers lacks."""
    way_out = f": {REFUSED[name]}" if name in REFUSED else suggestion(name, [one for one in dir(cls) if one[0] != "_"])
    return f"{cls.__name__} has no {name!r}{way_out}"


def text_of(token: Any) -> Any:  # noqa: ANN401 - a string, None, or an object with the text as `content`
    """Return the text of a token, or None."""
    return getattr(token, "content", token)


def refuse_unknown(cls: type, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise TypeError for arguments of `from_pretrained` that a tokenizer does not have."""
    if unknown := [name for name in given if name not in known]:
        named = ", ".join(f"{name!r}{suggestion(name, known)}" for name in unknown)
        raise TypeError(f"{named}: no setting of {cls.__name__}, which has {', '.join(known)}")
