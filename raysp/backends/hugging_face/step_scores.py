"""Log-probabilities of the tokens that a greedy generation of transformers takes, from the logits of its own steps.

Legend: B batch, K steps of a generation, V vocabulary.
"""

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


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

        The first steps may be others than those of the texts, such as that of the detection of languages.
        """
        steps: _Steps = vars(self._of_thread).pop("steps")
        steps.take(last_B)
        return torch.stack(steps.log_probs, dim=1) if steps.log_probs else last_B.new_zeros((len(last_B), 0)).float()

    def _keep(self, _: object, __: object, given: Mapping[str, Any], output: Any) -> None:  # noqa: ANN401
        steps: _Steps | None = getattr(self._of_thread, "steps", None)
        if steps is not None:
            steps.take(given["decoder_input_ids"][:, -1])
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
