"""Texts that the text decoders of raysp's models generate, with the log-probabilities of their tokens."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from raysp.crossing import constant, fetch
from raysp.models.labelled_passes import Written
from raysp.models.tokenizers.described import is_language, token_of

if TYPE_CHECKING:
    from raysp.models.base.outputs import ModelOutput
    from raysp.models.tokenizers.text import TextTokenizer

ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False, "output_scores": False}
"""Options that are fixed for labels and override the options of a checkpoint."""


@dataclass(frozen=True)
class Prompt:
    """Tokens with which texts begin."""

    options: Mapping[str, object]
    """Options of `generate`: the start token, if it is the token of the language."""
    ids: tuple[int, ...]
    """Tokens after the start token."""

    @property
    def num_forced(self) -> int:
        """Number of tokens that generation starts from; a single one after the start token is an option instead."""
        return 1 + len(self.ids) if len(self.ids) > 1 else 1

    @classmethod
    def of(cls, tokenizer: "TextTokenizer", start: object, *, language: str | None, task: str | None) -> Self:
        """Return the tokens of a language and a task.

        Args:
            tokenizer: tokenizer of the decoder.
            start: start token of the checkpoint, which mBART replaces by the token of the language.
            language: name of the language, or its token; None: the default of the checkpoint.
            task: name of the task, or its token; None: the default of the checkpoint.

        Raises:
            CheckpointError: the vocabulary has no such token, or several.
        """
        vocabulary, special = tokenizer.get_vocab(), tokenizer.all_special_tokens
        names = {"language": language, "task": task}
        ids = [token_of(name, field, vocabulary, special) for field, name in names.items() if name is not None]
        if language is not None and isinstance(start, int) and is_language(tokenizer.convert_ids_to_tokens(start)):
            return cls({"decoder_start_token_id": ids[0]}, tuple(ids[1:]))
        return cls({}, tuple(ids))


class Generating:
    """Text decoder of a speech-encoder-decoder with the options of a transcript, a `Writer`.

    Args:
        model: an encoder with a text decoder.
        tokenizer: tokenizer that converts ids to text.
        options: options of `generate`, and `seed`.
        prompt: tokens with which each text begins, excluded from text and score.
        precision: returns the context in which the model computes.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - any of them
        tokenizer: Any,  # noqa: ANN401 - any text tokenizer
        options: Mapping[str, object],
        prompt: Prompt | None,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.precision = precision
        self.is_prompted = prompt is not None
        of_prompt, self.prompt = ({}, ()) if prompt is None else (prompt.options, prompt.ids)
        self.options = {**options, **of_prompt, **ONE_TEXT}
        if len(self.prompt) == 1:
            self.options["forced_bos_token_id"] = self.prompt[0]
        self.seed = self.options.pop("seed", 0)

    def __call__(self, encoded: "ModelOutput", features: Mapping[str, Any], places: Sequence[str]) -> Sequence[Written]:
        # On a GPU the host waits between the steps of a text.
        options = dict(self.options)
        if options.get("do_sample"):
            options["generators"] = [self._generator(place) for place in places]
        if len(self.prompt) > 1:
            options["decoder_input_ids"] = constant(self.prompt, self.model.device).expand(len(places), -1)
        inputs = {"encoder_outputs": encoded, "attention_mask": features.get("attention_mask")}
        with self.precision():
            ids_BL = self.model.generate(**inputs, **options)
            # Scores by one more pass: cheap compared with generation, and equal for beams, sampling and greedy search.
            logits_BLV = self.model(**inputs, decoder_input_ids=ids_BL[:, :-1]).logits
        log_probs_BL = logits_BLV.float().log_softmax(-1).gather(-1, ids_BL[:, 1:, None])[:, :, 0]
        emitted_BL = self._emitted(ids_BL)
        totals_B = log_probs_BL.masked_fill(~emitted_BL, 0.0).sum(1)
        # Special tokens are skipped anyway, but the token of a language need not be special.
        ids_BL = ids_BL[:, 1 + len(self.prompt) :] if self.is_prompted else ids_BL
        ids, totals, counts = fetch(ids_BL, totals_B, emitted_BL.sum(1))
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [Written(*row) for row in zip(texts, totals.tolist(), counts.tolist(), strict=True)]

    def _generator(self, place: str) -> torch.Generator:
        # Seven bytes, which fit into the 63 bits of a positive seed.
        digest = hashlib.blake2b(f"{self.seed}|{place}".encode(), digest_size=7).digest()
        return torch.Generator(self.model.device).manual_seed(int.from_bytes(digest, "little"))

    def _emitted(self, ids_BL: Tensor) -> Tensor:
        """Return a mask of the tokens after the start token up to the first end, without the prompt."""
        is_end_BL = torch.isin(ids_BL[:, 1:], constant(tuple(self._ends()), ids_BL.device))
        emitted_BL = (is_end_BL.int().cumsum(1) - is_end_BL.int()) == 0  # the first end counts
        emitted_BL[:, : len(self.prompt)] = False
        return emitted_BL

    def _ends(self) -> list[int]:
        """Return the ids that end a text; only padding follows them."""
        config = self.model.generation_config
        end: Any = self.options.get("eos_token_id", config.eos_token_id)
        ids = [] if end is None else list(end) if isinstance(end, list | tuple) else [end]
        pad: Any = self.options.get("pad_token_id", config.pad_token_id)
        return [*ids, *([] if ids or pad is None else [pad])]
