"""Options of `generate`, read from generation_config.json, config.json or keywords."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_type_hints

from raysp.checkpoints.hub import GENERATION_FILES
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config, Shareable, checked, read_json, write_json
from raysp.words import suggestion

FILE = "generation_config.json"
DEFAULT_NEW_TOKENS = 20  # where no length is set

# Metadata that transformers writes beside options, and values that disable an option: accepted.
NOT_OPTIONS = {"_from_model_config", "_commit_hash", "_original_object_hash", "transformers_version"}
WITHOUT_EFFECT: dict[str, object] = {
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "diversity_penalty": 0.0,
    "num_beam_groups": 1,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
    "max_matching_ngram_size": 2,
    "cache_implementation": "dynamic",
    "disable_compile": True,
    "low_memory": True,
}

SEED = "seed"
"""Option of labels, not of `generate`: the seed of sampling, which is combined with the place of the row."""
OF_SAMPLING: Mapping[str, Any] = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.0, SEED: 0}
OF_BEAMS: Mapping[str, Any] = {"early_stopping": False, "length_penalty": 1.0}
"""Options that act only with `do_sample`, or with several beams, and their defaults."""
USUAL: Mapping[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""Defaults of further options."""


@dataclass(kw_only=True)
class GenerationConfig(Shareable):
    """Options of `generate` under their names in transformers; None means not set.

    `max_length` and `min_length` include the prompt, `max_new_tokens` and `min_new_tokens` do not. `use_cache` has no
    effect: a cache is always used and does not change tokens.
    """

    files: ClassVar[Sequence[str]] = GENERATION_FILES
    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    early_stopping: bool | Literal["never"] | None = None
    length_penalty: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    bad_words_ids: list[list[int]] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | list[int] | None = None
    output_scores: bool | None = None
    return_dict_in_generate: bool | None = None
    use_cache: bool | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make options from a mapping.

        Raises:
            ValueError: An option is unknown; the message lists all options.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name, value in values.items() if name not in names and not _does_nothing(name, value)]
        if unknown:
            named = ", ".join(f"{name}={_short(values[name])}{suggestion(name, names)}" for name in unknown)
            raise ValueError(f"generation does not support {named}, expected options among {', '.join(sorted(names))}")
        hints = get_type_hints(cls)
        return cls(**{name: _of_its_type(name, values[name], hints[name]) for name in names if name in values})

    @classmethod
    def of(cls, options: Any) -> Self:  # noqa: ANN401 - of raysp or of transformers
        """Return options of this class, converted from transformers' class of the same name if necessary.

        Raises:
            TypeError: The options are of neither class.
            ValueError: An option is unknown.
        """
        if isinstance(options, cls):
            return options
        if not callable(getattr(options, "to_diff_dict", None)):
            raise TypeError(f"generation_config is {options!r}, expected a GenerationConfig")
        return cls.from_dict(options.to_diff_dict())

    @classmethod
    def of_checkpoint(cls, folder: Path, config: Config) -> Self:
        """Return the options of generation_config.json, or else of the configuration."""
        return cls.from_file(folder) or cls.from_model_config(config)

    @classmethod
    def from_file(cls, folder: Path) -> Self | None:
        """Return the options of generation_config.json; None if it is absent or only repeats config.json."""
        if (folder / FILE).is_file() and not read_json(folder / FILE).get("_from_model_config"):
            return cls.from_pretrained(folder)
        return None

    @classmethod
    def from_pretrained(cls, pretrained_model_name: str | Path, **options: Any) -> Self:  # type: ignore[override]  # noqa: ANN401
        """Read generation_config.json of a checkpoint folder or hub id; keyword arguments override its options."""
        return super().from_pretrained(pretrained_model_name, **options)

    @classmethod
    def _read(cls, folder: Path, name: str, overrides: dict[str, Any]) -> Self:
        path = folder / FILE
        try:
            return cls.from_dict({**read_json(path), **overrides})
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def from_model_config(cls, config: Config) -> Self:
        """Return the options in a model's configuration; options of its decoder fill gaps."""
        decoder = getattr(config, "decoder", None)
        values = {} if decoder is None else _options(decoder)
        return cls.from_dict({**values, **_options(config)})

    def to_dict(self) -> dict[str, Any]:
        """Return the options that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def _save(self, folder: Path) -> None:
        """Write generation_config.json."""
        write_json(folder / FILE, self.to_dict())

    def first_token(self, config: Any) -> int | list[int] | None:  # noqa: ANN401 - of a speech-encoder-decoder
        """Return the token that texts begin with, by these options or else the configuration; None if unset."""
        named = (self.decoder_start_token_id, config.decoder_start_token_id, self.bos_token_id)
        return next((token for token in named if token is not None), None)

    def start_tokens(self, config: Any) -> tuple[int, ...]:  # noqa: ANN401 - of a speech-encoder-decoder
        """Return the first token of all texts, or the first token of each text."""
        start = self.first_token(config)
        if start is None:
            raise ValueError(
                "decoder_start_token_id and bos_token_id are None, expected the start token of texts: set one of them"
            )
        return (start,) if isinstance(start, int) else tuple(start)

    def merged(self, other: "GenerationConfig") -> Self:
        """Return these options, replaced by those set in `other`."""
        return replace(self, **other.to_dict())


def _short(value: object) -> str:
    """Return a value in one short line."""
    return " ".join(reprlib.repr(value).split())


def _of_its_type(name: str, value: Any, hint: Any) -> Any:  # noqa: ANN401 - an option and its annotation
    if value is None or name == "early_stopping":  # checked in `Settings`
        return value
    try:
        return checked(name, value, hint)
    except CheckpointError:
        raise ValueError(f"{name} is {value!r}, expected {hint}") from None


def _options(config: Config) -> dict[str, Any]:
    names = [*(field.name for field in fields(GenerationConfig)), *WITHOUT_EFFECT]
    values = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _does_nothing(name: str, value: object) -> bool:
    return name in NOT_OPTIONS or value is None or value is False or WITHOUT_EFFECT.get(name, ...) == value


Change = tuple[str, tuple[Any, ...]]
"""Name of a change of scores, with its arguments."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options with their defaults, checked against each other."""

    max_length: int
    min_length: int
    do_sample: bool
    num_beams: int
    num_return_sequences: int
    early_stopping: bool | str
    length_penalty: float
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    no_repeat_ngram_size: int
    bad_words_ids: tuple[tuple[int, ...], ...]
    suppress_tokens: tuple[int, ...]
    begin_suppress_tokens: tuple[int, ...]
    forced_bos_token_id: int | None
    forced_eos_token_ids: tuple[int, ...]
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    output_scores: bool
    return_dict: bool

    def check_tokens(self, vocab_size: int) -> None:
        """Raise ValueError where an option names a token that a vocabulary of this size does not have."""
        named = {
            "bad_words_ids": [token for word in self.bad_words_ids for token in word],
            "suppress_tokens": self.suppress_tokens,
            "begin_suppress_tokens": self.begin_suppress_tokens,
            "forced_bos_token_id": _ids(self.forced_bos_token_id),
            "forced_eos_token_id": self.forced_eos_token_ids,
            "eos_token_id": self.eos_token_ids,
            "pad_token_id": _ids(self.pad_token_id),
        }
        for name, tokens in named.items():
            for token in tokens:
                if not 0 <= token < vocab_size:
                    raise ValueError(f"{name} has {token!r}, expected ids below the vocabulary's size {vocab_size}")

    def check_used(self, reported: Mapping[str, Any]) -> None:
        """Raise ValueError for an option, other than its default, that has no effect without another option."""
        for options, other, is_set in (
            (OF_SAMPLING, "do_sample=True", self.do_sample),
            (OF_BEAMS, "num_beams above 1", self.num_beams > 1),
        ):
            unused = [name for name, usual in options.items() if reported.get(name) not in (None, usual)]
            if unused and not is_set:
                raise ValueError(f"{', '.join(unused)} acts only with {other}: add that, or leave it out")

    @classmethod
    def of(cls, config: GenerationConfig, prompt_length: int, num_positions: int | None) -> "Settings":
        """Return settings with defaults filled in.

        Args:
            config: Options of the call.
            prompt_length: Tokens of the prompt.
            num_positions: Limit of the default length; None: no limit.
        """
        eos = _ids(config.eos_token_id)
        defaults = {**OF_SAMPLING, **OF_BEAMS, **USUAL}
        values = {name: getattr(config, name) for name in defaults if name != SEED}
        settings = cls(
            **{name: defaults[name] if value is None else value for name, value in values.items()},
            max_length=_max_length(config, prompt_length, num_positions),
            min_length=(config.min_length or 0)
            if config.min_new_tokens is None
            else config.min_new_tokens + prompt_length,
            do_sample=bool(config.do_sample),
            bad_words_ids=tuple(tuple(word) for word in config.bad_words_ids or ()),
            suppress_tokens=tuple(config.suppress_tokens or ()),
            begin_suppress_tokens=tuple(config.begin_suppress_tokens or ()),
            forced_bos_token_id=config.forced_bos_token_id,
            forced_eos_token_ids=_ids(config.forced_eos_token_id),
            eos_token_ids=eos,
            pad_token_id=eos[0] if config.pad_token_id is None and eos else config.pad_token_id,
            output_scores=bool(config.output_scores),
            return_dict=bool(config.return_dict_in_generate),
        )
        settings._check(prompt_length)
        return settings

    def changes(self, prompt_length: int) -> list[Change]:
        """Return the changes of scores by name, in the order of transformers.

        Both implementations, decoder/logits.py and flax/logits.py, make theirs of this list.
        """
        eos = self.eos_token_ids
        words = tuple(word for word in self.bad_words_ids if word not in {(token,) for token in eos})
        begin = prompt_length + (prompt_length == 1 and self.forced_bos_token_id is not None)
        before = [
            ("repetition_penalty", (self.repetition_penalty,), self.repetition_penalty != 1.0),
            ("no_repeated_ngrams", (self.no_repeat_ngram_size,), self.no_repeat_ngram_size > 0),
            ("no_bad_words", (words,), bool(words)),
            ("suppress", (eos, 0, self.min_length), bool(eos) and self.min_length > 0),
            ("force", (_ids(self.forced_bos_token_id), 1), self.forced_bos_token_id is not None),
            ("force", (self.forced_eos_token_ids, self.max_length - 1), bool(self.forced_eos_token_ids)),
            ("suppress", (self.suppress_tokens,), bool(self.suppress_tokens)),
            ("suppress", (self.begin_suppress_tokens, begin, begin + 1), bool(self.begin_suppress_tokens)),
        ]
        # Beams need one token more than there are end tokens, so that a text can continue.
        at_least = 1 if self.num_beams == 1 else max(2, len(eos) + 1)
        sampling = [
            ("temperature", (self.temperature,), self.temperature != 1.0),
            ("top_k", (max(self.top_k, at_least),), self.top_k > 0),
            ("top_p", (self.top_p, at_least), self.top_p < 1.0),
            ("min_p", (self.min_p, at_least), self.min_p > 0.0),
        ]
        listed = [*before, *(sampling if self.do_sample else ())]
        return [(name, arguments) for name, arguments, acts in listed if acts]

    def _check(self, prompt_length: int) -> None:
        expected = {
            "num_beams": (self.num_beams, self.num_beams >= 1, "at least 1"),
            "num_return_sequences": (
                self.num_return_sequences,
                1 <= self.num_return_sequences <= (self._most_sequences or self.num_return_sequences),
                f"1 to {self._most_sequences or 'any number'} (several need sampling or beams)",
            ),
            "early_stopping": (self.early_stopping, self.early_stopping in (True, False, "never"), "a bool or 'never'"),
            "temperature": (self.temperature, self.temperature > 0, "above 0"),
            "top_k": (self.top_k, self.top_k >= 0, "at least 0"),
            "top_p": (self.top_p, 0 <= self.top_p <= 1, "from 0 to 1"),
            "min_p": (self.min_p, 0 <= self.min_p <= 1, "from 0 to 1"),
            "repetition_penalty": (self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
            "max_length": (self.max_length, self.max_length > prompt_length, f"above the {prompt_length} given tokens"),
        }
        for name, (value, is_fine, bound) in expected.items():
            if not is_fine:
                raise ValueError(f"{name} is {value!r}, expected {bound}")
        forced = {
            "forced_bos_token_id": _ids(self.forced_bos_token_id),
            "forced_eos_token_id": self.forced_eos_token_ids,
        }
        for name, tokens in forced.items():
            if tokens and {*tokens} <= {*self.suppress_tokens}:
                raise ValueError(f"{name} {list(tokens)} is also in suppress_tokens, expected in one of the two")
        if any(not word for word in self.bad_words_ids):
            raise ValueError("bad_words_ids has an empty list, expected the token ids of one word in each list")

    @property
    def num_texts(self) -> int:
        """Texts of a row that are searched at once."""
        return self.num_beams if self.num_beams > 1 else self.num_return_sequences

    @property
    def _most_sequences(self) -> int | None:
        """Largest number of sequences per row; None: no limit."""
        if self.num_beams > 1:
            return self.num_beams
        return None if self.do_sample else 1


def _max_length(config: GenerationConfig, prompt_length: int, num_positions: int | None) -> int:
    if config.max_new_tokens is not None:
        return config.max_new_tokens + prompt_length
    if config.max_length is not None:
        return config.max_length
    return min(DEFAULT_NEW_TOKENS + prompt_length, num_positions or DEFAULT_NEW_TOKENS + prompt_length)


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    """Return one id or several as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
