"""Checks of the tokens of a checkpoint against the classes of its head or the ids of its text decoder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from raysp.errors import CheckpointError
from raysp.models.base.configuration import short
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.models.tokenizers.described import BLANK, PIECES, class_named
from raysp.models.tokenizers.named_tokenizers import CTCTokenizer, read_ctc_tokenizer
from raysp.words import listed

NAMES_SHOWN = 8


def check_ids(folder: Path, ids: Iterable[int], size: int, name: str) -> None:
    """Check that a text decoder with a vocabulary of `size` tokens, the `name` of config.json, has all ids of tokens.

    Raises:
        CheckpointError: It does not.
    """
    if (highest := max(ids, default=-1)) >= size:
        raise CheckpointError(
            f"{folder}: the tokenizer's highest token id is {highest}, but the decoder has {size} tokens "
            f"(config.json, {name}): use the tokenizer that was saved with these weights"
        )


def check_tokens(folder: Path, config: Any, size: int) -> None:  # noqa: ANN401 - of any model with a CTC head
    """Check that the tokens match the `size` classes of a head, and that the blank is the padding token.

    Raises:
        CheckpointError: They differ, or there is no tokenizer.
    """
    tokens_file = "tokenizer.json" if class_named(folder) == PIECES else "vocab.json"
    if not (folder / tokens_file).is_file():
        raise CheckpointError(
            f"{folder}: {tokens_file} not found, expected the tokens of the head: complete the checkpoint"
        )
    tokenizer = read_ctc_tokenizer(folder)
    if isinstance(tokenizer, Wav2Vec2CTCTokenizer):
        if not tokenizer.vocab:
            raise CheckpointError(f"{folder}: vocab.json holds no tokens, expected those of the head: copy it again")
        if not tokenizer.encoder:
            raise CheckpointError(
                f"{folder}: vocab.json holds the languages {short(sorted(tokenizer.vocab))} and "
                "tokenizer_config.json has no target_lang: set it to the language of this head"
            )
    check_head(folder, tokenizer, size, config, tokens_file)


def check_head(folder: Path, tokenizer: CTCTokenizer, size: int, config: Any, tokens_file: str) -> None:  # noqa: ANN401
    """Check that the tokens of a tokenizer match the `size` classes of a head, and that the blank is its padding.

    Raises:
        CheckpointError: They differ.
    """
    own = {*(tokenizer.decoder if isinstance(tokenizer, Wav2Vec2CTCTokenizer) else tokenizer.get_vocab().values())}
    named = {tokenizer.get_vocab()[token] for token in tokenizer.all_special_tokens}
    beyond = {index for index in tokenizer.get_vocab().values() if index >= size} - (named - own)
    missing = set(range(size)) - set(tokenizer.get_vocab().values())
    counts = f"{folder}: tokenizer has {len(tokenizer.get_vocab())} tokens, but the head has {size} classes"
    if names := "" if beyond or not missing else _names_of_last(tokenizer, own, size):
        raise CheckpointError(
            f"{counts}: classes without a token {_some(missing)}: use the {tokens_file} of these weights; if it is "
            f"that, name its unused classes there: {names}"
        )
    if beyond or missing:
        raise CheckpointError(
            f"{counts} (config.json, vocab_size): ids without a class {_some(beyond)}, classes without a token "
            f"{_some(missing)}: use the {tokens_file} that was saved with these weights"
        )
    blank = getattr(config, "blank_token_id", None)
    if blank is not None:  # a transducer, whose padding may be any token
        if tokenizer.get_vocab().get(BLANK, blank) != blank:
            raise CheckpointError(
                f"{folder}: the token {BLANK!r} is id {tokenizer.get_vocab()[BLANK]}, config.json has blank_token_id "
                f"{blank!r}: correct the wrong one"
            )
    elif tokenizer.pad_token_id != config.pad_token_id:
        pad_token = {index: token for token, index in tokenizer.get_vocab().items()}.get(tokenizer.pad_token_id or 0)
        raise CheckpointError(
            f"{folder}: tokenizer's pad_token {pad_token!r} is id {tokenizer.pad_token_id}, config.json has "
            f"pad_token_id {config.pad_token_id!r}: both are the CTC blank, correct the wrong one"
        )


def _names_of_last(tokenizer: CTCTokenizer, own: set[int], size: int) -> str:
    """Return entries for vocab.json of the head's last classes; empty if not only the last classes lack a token."""
    first = len(own)
    if not isinstance(tokenizer, Wav2Vec2CTCTokenizer) or tokenizer.is_multilingual or own != {*range(first)}:
        return ""
    if len(tokenizer.encoder) > first:  # two tokens have one id
        return ""
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    added = [f"{json.dumps(tokens.get(index, f'<unused {index}>'))}: {index}" for index in range(first, size)]
    return ", ".join(added[:NAMES_SHOWN]) + (", ..." if len(added) > NAMES_SHOWN else "")


def _some(ids: set[int]) -> str:
    return listed([*map(str, sorted(ids))], 5) or "none"
