"""Text of the ids of a CTC tokenizer: one id at a time, and many rows at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

BLANK = "<blank>"
"""Blank among the tokens of transducers; that of CTC is padding."""


class CTCTokenizer(Protocol):
    """Conversion of the ids of a CTC head, without repeats and blanks, to texts."""

    @property
    def pad_token_id(self) -> int:
        """Id of padding, which is the blank."""
        ...

    @property
    def begins_words(self) -> frozenset[int]:
        """Ids of the tokens that begin a word, where no token stands between words."""
        ...

    @property
    def word_delimiter_token(self) -> str | None:
        """Token between words."""
        ...

    @property
    def encoder(self) -> Mapping[str, int]:
        """Tokens with their ids, without added ones."""
        ...

    @property
    def joint(self) -> str:
        """Text between the tokens of a word: a space between phonemes."""
        ...

    def ids_of_written(self, text: str) -> list[int]:
        """Return the ids of a text as the head writes it."""
        ...

    def decode_collapsed(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
        ...

    def decode_collapsed_rows(self, ids: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> list[str]:
        """Return the text of each row of ids (N,); `counts` (B,) holds the ids per row."""
        ...

    def written_characters(self, ids: Iterable[int]) -> list[str]:
        """Return the text of each id within a word; "" for separators of words."""
        ...

    def get_vocab(self) -> dict[str, int]:
        """Return {token: id}."""
        ...

    @property
    def all_special_tokens(self) -> Sequence[str]:
        """Tokens that are not text."""
        ...


class Written(dict[int, str]):
    """Cache of the text of each id."""

    def __init__(self, find: Callable[[int], str]) -> None:
        super().__init__()
        self.find = find

    def __missing__(self, index: int) -> str:
        self[index] = self.find(index)
        return self[index]


class Letters:
    """Texts of rows of ids with one character each, decoded in one pass.

    Args:
        written: Text of each id, from 0.
    """

    def __init__(self, written: list[str]) -> None:
        self.codes = np.array([ord(text) if len(text) == 1 else 0 for text in written], np.dtype("<u4"))

    def knows(self, ids: npt.NDArray[np.integer]) -> bool:
        """Return whether all of the ids are known."""
        return not len(ids) or bool(ids.min() >= 0 and ids.max() < len(self.codes))

    def texts(self, ids: npt.NDArray[np.integer], ends: list[int]) -> list[str] | None:
        """Return the text of each row, which ends at `ends`; None if an id is not one character."""
        codes = self.codes[ids] if self.knows(ids) else np.zeros(1)
        if not codes.all():
            return None
        text = codes.tobytes().decode("utf-32-le")
        return [text[start:end] for start, end in pairwise([0, *ends])]
