"""Settings of generation_config.json that a greedy search of texts may have; all others are refused by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from raysp.backends.hugging_face.decoded_texts import FIXED
from raysp.backends.hugging_face.describing import Kind, read
from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.decoder.generation_config import NOT_OPTIONS, OF_BEAMS, OF_SAMPLING, USUAL, WITHOUT_EFFECT

FILE = "generation_config.json"
NEUTRAL: Mapping[str, Any] = {**WITHOUT_EFFECT, **USUAL, "guidance_scale": 1.0, "min_length": 0, "penalty_alpha": 0.0}
"""Values that are as if a setting were not set."""
DEPENDENT = (
    "bad_words_ids", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "min_length",
    "no_repeat_ngram_size", "repetition_penalty", "sequence_bias",
)  # fmt: skip
"""Settings that read or count the prompt, which padding is a part of."""
USED = (
    "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "eos_token_id",
    "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id", "max_length", "max_new_tokens",
    "min_new_tokens", "pad_token_id", "remove_invalid_values", "renormalize_logits", "suppress_tokens",
)  # fmt: skip
"""Settings by which transformers searches greedily, and for which a text does not depend on its batch."""
UNUSED = (
    "assistant_confidence_threshold", "assistant_lookbehind", "disable_compile", "epsilon_cutoff", "eta_cutoff",
    "low_memory", "max_matching_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "num_beams",
    "target_lookbehind", "top_h", "typical_p", "use_cache",
)  # fmt: skip
"""Settings of sampling, of assistants and of caches, which do not change a greedy search."""
ALLOWED = frozenset({*USED, *UNUSED, *DEPENDENT, *FIXED, *OF_SAMPLING, *OF_BEAMS, *NOT_OPTIONS})
ALLOWED_OF_TRANSDUCERS = (ALLOWED - {*USED, *DEPENDENT}) | {"bos_token_id", "decoder_start_token_id", "pad_token_id"}
"""Settings that do not change the search of a transducer, whose text ends with the recording."""


CACHE = "cache_implementation"
"""Setting that searches of streams override."""


def settings_of(folder: Path, kind: Kind) -> Mapping[str, Any]:
    """Return the settings of generation_config.json, or else of config.json, that are set.

    Raises:
        CheckpointError: they cannot be read, or one of them changes the search.
    """
    config = generation_config_of(folder, kind)
    settings = {name: value for name, value in config.to_dict().items() if not _is_unset(name, value)}
    defaults = transformers.GenerationConfig().to_dict()  # transformers reads no others
    allowed = ALLOWED_OF_TRANSDUCERS if kind.head is Capability.TRANSDUCER else ALLOWED
    if kind.family.is_stream:
        allowed = allowed | {CACHE}
    for name in sorted({*settings} & {*defaults} - allowed):
        raise CheckpointError(
            f"{folder}: {FILE} has {name}={settings[name]!r}, with which raysp does not label: texts are searched "
            f"greedily, and depend neither on time nor on their batch. Remove {name} from {FILE}"
        )
    return settings


def generation_config_of(folder: Path, kind: Kind) -> Any:  # noqa: ANN401 - a class of transformers
    """Return generation_config.json, or else the settings of config.json.

    Raises:
        CheckpointError: they cannot be read.
    """
    made = transformers.GenerationConfig
    if not (folder / FILE).is_file():
        return read(folder, lambda: made.from_model_config(kind.config))
    config = read(folder, lambda: made.from_pretrained(folder, local_files_only=True))
    if kind.is_part and config.eos_token_id is None:
        config.eos_token_id = getattr(kind.config, "eos_token_id", None) or getattr(kind.whole, "im_end_token_id", None)
    return config


def _is_unset(name: str, value: Any) -> bool:  # noqa: ANN401
    """Return whether a setting has no effect."""
    if value is None or value is False or value in ("", [], {}):
        return True
    return name in NEUTRAL and value == NEUTRAL[name]
