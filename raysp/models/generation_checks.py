"""Checks of the options with which a text decoder writes, against its checkpoint folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysp.errors import CheckpointError
from raysp.models.decoder.generation_config import SEED, GenerationConfig, Settings
from raysp.models.registry import COMPOSITE, config_class


def check_generation(folder: Path, options: Mapping[str, Any], prompt_length: int = 1) -> Settings:
    """Check options of `generate`, and `seed`, against a checkpoint with a text decoder, for a prompt of N tokens.

    Returns the settings of generation.

    Raises:
        CheckpointError: An option is unknown or its value invalid, has no effect, or names a token beyond the
            vocabulary; the first token is unknown; texts may exceed the decoder's positions.
    """
    config: Any = config_class(COMPOSITE).from_pretrained(folder)
    decoder = config.decoder
    try:
        explicit = GenerationConfig.from_dict({name: value for name, value in options.items() if name != SEED})
        generation = GenerationConfig.of_checkpoint(folder, config).merged(explicit)
        settings = Settings.of(generation, prompt_length, None)
        settings.check_tokens(decoder.vocab_size)
        settings.check_used(options)
    except ValueError as error:
        raise CheckpointError(f"{folder}: generate: {error}") from None
    start = generation.first_token(config)
    if type(start) is not int or not 0 <= start < decoder.vocab_size:
        raise CheckpointError(
            f"{folder}: decoder_start_token_id is {start!r}, expected an id below the vocabulary's size "
            f"{decoder.vocab_size}: correct config.json, or pass generate={{'decoder_start_token_id': ...}}"
        )
    positions = decoder.max_position_embeddings
    if settings.max_length > positions + 1:  # the last token is not an input
        raise CheckpointError(
            f"{folder}: max_length is {settings.max_length} tokens, but the decoder has {positions} positions "
            f"(max_position_embeddings): pass generate={{'max_new_tokens': {positions}}}"
        )
    return settings


def start_token(folder: Path) -> object:
    """Return the token that texts of a checkpoint with a text decoder begin with; None if unset."""
    config: Any = config_class(COMPOSITE).from_pretrained(folder)
    return GenerationConfig.of_checkpoint(folder, config).first_token(config)
