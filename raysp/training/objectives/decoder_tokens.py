"""Targets of a decoder of text: the ids of texts, with the tokens that begin and end them."""

from collections.abc import Sequence
from typing import NamedTuple

from raysp.errors import CheckpointError
from raysp.models.files.configuration import Config
from raysp.models.tokenizers.text import TextTokenizer


class SpecialIds(NamedTuple):
    """Special tokens of a decoder."""

    start: int
    end: int
    padding: int


def special_ids(tokenizer: TextTokenizer, *configs: Config) -> SpecialIds:
    """Return the special tokens of a decoder.

    Args:
        tokenizer: the decoder's.
        configs: configurations, of which the first that has a `decoder_start_token_id` determines the start token.

    Raises:
        CheckpointError: there is no start token or no end token.
    """
    configured = (getattr(config, "decoder_start_token_id", None) for config in configs)
    start = _first(*configured, tokenizer.bos_token_id, tokenizer.cls_token_id)
    end = _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
    padding = _first(tokenizer.pad_token_id, end)
    if start is None or end is None or padding is None:
        raise CheckpointError(
            f"the decoder's tokenizer has the special tokens {tokenizer.all_special_tokens}, expected one that begins "
            "a text (bos_token or cls_token) and one that ends it (eos_token or sep_token): set them in its files"
        )
    return SpecialIds(start, end, padding)


def _first(*ids: int | None) -> int | None:
    return next((one for one in ids if one is not None), None)


class DecoderTokens:
    """Ids of texts for a decoder: those of its tokenizer without the start token, up to the end token.

    Args:
        tokenizer: the decoder's.
        special: its special tokens.
        prompt_tokens: tokens of the vocabulary that begin every text, such as that of a language.
    """

    def __init__(self, tokenizer: TextTokenizer, special: SpecialIds, prompt_tokens: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.special = special
        self.prompt = token_ids(tokenizer, prompt_tokens)

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        if ids[:1] == [self.special.start]:
            ids = ids[1:]
        if self.special.end in ids:
            ids = ids[: ids.index(self.special.end)]
        return [*self.prompt, *ids, self.special.end]


def token_ids(tokenizer: TextTokenizer, tokens: Sequence[str]) -> list[int]:
    """Return the ids of tokens.

    Raises:
        CheckpointError: the vocabulary lacks one.
    """
    vocabulary = tokenizer.get_vocab()
    if missing := [token for token in tokens if token not in vocabulary]:
        raise CheckpointError(f"{', '.join(map(repr, missing))}: no token of the decoder's vocabulary; use one of it")
    return [vocabulary[token] for token in tokens]
