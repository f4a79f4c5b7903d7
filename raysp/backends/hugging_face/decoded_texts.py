"""Texts of the decoders of transformers: generation and scores.

Legend: B batch, L tokens of a text, V vocabulary, K steps of a generation.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from raysp.backends.hugging_face.describing import DIRECT, WHISPER, read
from raysp.crossing import fetch
from raysp.models.base.outputs import ModelOutput
from raysp.models.labelled_passes import CheckpointSummary, Written


class StepScores:
    """Recorder of the log-probabilities of tokens, before suppressed tokens and the like are left out.

    A step's logits are kept until the next step, whose input is the token that was taken.

    Args:
        model: a model of transformers with a text decoder; several recorders may share it, and threads too.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - of transformers
        self._of_thread = threading.local()
        model.register_forward_hook(self._keep, with_kwargs=True)

    def begin(self) -> None:
        """Record the steps of this thread from now on."""
        self._of_thread.steps = _Steps()

    def end(self, last_B: Tensor) -> Tensor:
        """Return the log-probabilities (B, K) of the tokens of all steps, float32, of which the last is given.

        The first steps may not belong to the texts, such as the step that detects the language.
        """
        steps: _Steps = vars(self._of_thread).pop("steps")
        steps.take(last_B)
        return torch.stack(steps.log_probs, dim=1) if steps.log_probs else last_B.new_zeros((len(last_B), 0)).float()

    def logits(self) -> Tensor:
        """Return the logits (B, V) of the last step, and record no more."""
        steps: _Steps = vars(self._of_thread).pop("steps")
        assert steps.logits_BV is not None
        return steps.logits_BV

    def _keep(self, _: object, __: object, inputs: Mapping[str, Any], output: Any) -> None:  # noqa: ANN401
        steps: _Steps | None = getattr(self._of_thread, "steps", None)
        if steps is not None:
            ids_BL = inputs.get("decoder_input_ids", inputs.get("input_ids"))
            if ids_BL is not None:
                steps.take(ids_BL[:, -1] if ids_BL.ndim == 2 else ids_BL[:, -1, 0])  # codes of audio follow a token
            steps.logits_BV = output.logits[:, -1].float()


class _Steps:
    """Log-probabilities so far, and the logits of the last step."""

    def __init__(self) -> None:
        self.log_probs: list[Tensor] = []
        self.logits_BV: Tensor | None = None

    def take(self, token_B: Tensor) -> None:
        """Add the log-probability of the token that follows the last step, if there is one."""
        if self.logits_BV is not None:
            of_token_B = self.logits_BV.gather(-1, token_B[:, None])[:, 0]
            self.log_probs.append(of_token_B - self.logits_BV.logsumexp(-1))


FIXED = {"do_sample": False, "num_return_sequences": 1, "return_dict_in_generate": False, "output_scores": False}
"""Options of generation that labels need; they override those of a checkpoint."""


def end_tokens(of_checkpoint: int | Sequence[int] | None, options: Mapping[str, Any]) -> frozenset[int | None]:
    """Return the tokens that end a text: those of the options of `generate`, or else of the checkpoint."""
    ends = options.get("eos_token_id", of_checkpoint)
    return frozenset(ends if isinstance(ends, list | tuple) else [ends])


def end_of(ids: Sequence[int], ends: Collection[int | None]) -> int:
    """Return the place of the first token that ends a text; the number of tokens if none does."""
    return next((place for place, token in enumerate(ids) if token in ends), len(ids))


def language_code(language: str) -> str:
    """Return the code of a language that is named in English, or by its code or token."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    plain = language.lower().strip("<|>")
    return str(TO_LANGUAGE_CODE.get(plain, plain))


class TextWriter:
    """Text decoder of a model: greedy by default.

    Args:
        model: the model.
        checkpoint: its description.
        options: options of `generate`.
        language: language of the texts; None: as detected for each window, if the checkpoint has several.
        task: "transcribe" or "translate"; None: as the checkpoint does.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - of transformers
        checkpoint: CheckpointSummary,
        options: Mapping[str, object],
        *,
        language: str | None,
        task: str | None,
    ) -> None:
        self.model, folder, config = model, checkpoint.path, model.generation_config
        self.tokenizer: Any = read(folder, lambda: transformers.AutoTokenizer.from_pretrained(folder, **DIRECT))
        self.options: dict[str, Any] = {**options, **FIXED}
        self.ends = end_tokens(config.eos_token_id, options)
        self.prompt_ids: frozenset[int | None] = frozenset()
        # In half precision, steps and a second pass differ by more than labels may.
        is_greedy = self.options.get("num_beams", config.num_beams) in (None, 1)
        self.steps = StepScores(model) if is_greedy and model.dtype == torch.float32 else None
        if checkpoint.model_type == WHISPER:
            # One call returns all tokens, with the prompt and the end, without the loop for longer recordings.
            self.options |= {"return_timestamps": False, "force_unique_generate_call": True}
            self.options |= {"language": None if language is None else language_code(language), "task": task}
            self.prompt_ids = _whisper_prompt(config)

    def __call__(
        self, encoded: ModelOutput, features: Mapping[str, Tensor], places: Sequence[str]
    ) -> Sequence[Written]:
        """Return the text of each window; see `raysp.models.labelled_passes.Writer`."""
        inputs: dict[str, Any] = {"encoder_outputs": encoded}
        if (mask := features.get("attention_mask")) is not None:
            inputs["attention_mask"] = mask
        if self.steps is not None:
            self.steps.begin()
        ids_BL = self.model.generate(**inputs, **self.options)
        kept_BK = None if self.steps is None else self.steps.end(ids_BL[:, -1])
        ids = fetch(ids_BL)[0].tolist()
        prompts = [self._prompt_length(row) for row in ids]
        if kept_BK is None or kept_BK.shape[1] < ids_BL.shape[1] - min(prompts):
            kept_BK = self._second_pass(inputs, ids_BL)
        scores = fetch(kept_BK)[0].tolist()
        return [self._written(*row) for row in zip(ids, scores, prompts, strict=True)]

    def _written(self, ids: Sequence[int], log_probs: Sequence[float], begin: int) -> Written:
        """Return the text of a row from the log-probabilities of its last tokens."""
        end = end_of(ids[begin:], self.ends)
        counted = log_probs[len(log_probs) - len(ids) + begin :][: end + 1]
        return Written(self.tokenizer.decode(ids[begin:], skip_special_tokens=True), sum(counted), len(counted))

    def _prompt_length(self, ids: Sequence[int]) -> int:
        """Return the number of tokens that were not generated: the start token, and for Whisper language and task."""
        more = (place for place, token in enumerate(ids[1:], 1) if token not in self.prompt_ids)
        return next(more, len(ids))

    def _second_pass(self, inputs: Mapping[str, Any], ids_BL: Tensor) -> Tensor:
        """Return the log-probability of each token after the first (B, L - 1)."""
        logits_BLV = self.model(**inputs, decoder_input_ids=ids_BL[:, :-1]).logits
        log_probs_BL: Tensor = logits_BLV.float().log_softmax(-1).gather(-1, ids_BL[:, 1:, None])[:, :, 0]
        return log_probs_BL


def _whisper_prompt(config: Any) -> frozenset[int | None]:  # noqa: ANN401 - a class of transformers
    """Return the tokens of languages and tasks, and the one for no times."""
    names = ("lang_to_id", "task_to_id")
    indices = (index for name in names for index in (getattr(config, name, None) or {}).values())
    return frozenset((*indices, getattr(config, "no_timestamps_token_id", None)))
