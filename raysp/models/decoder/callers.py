"""Functions that callers of `generate` give: allowed tokens and streamers, as processors and criteria."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raysp.models.decoder.generation_config import GenerationConfig
from raysp.models.decoder.logits import Functions

AllowedTokensFunction = Callable[[int, Tensor], Sequence[int]]
"""Function of a row and its tokens that returns the ids of the tokens that may follow."""


def functions_of(
    options: GenerationConfig,
    prompt_BL: Tensor,
    *,
    processors: Any,  # noqa: ANN401 - None, a function or a list of them
    criteria: Any,  # noqa: ANN401
    allowed: AllowedTokensFunction | None,
    streamer: Any,  # noqa: ANN401 - with `put` and `end`
) -> Functions:
    """Return the functions that a call of `generate` runs.

    Raises:
        ValueError: A streamer is given for a search by beams, whose tokens may still change.
        TypeError: A function cannot be called, or a streamer has no `put` or no `end`.
    """
    given = Functions.of(processors, criteria)
    beams = options.num_beams or 1
    if allowed is not None:
        if not callable(allowed):
            raise TypeError(f"prefix_allowed_tokens_fn is {allowed!r}, expected a function of (row, input_ids)")
        given = Functions((AllowedTokens(allowed, beams), *given.processors), given.criteria)
    if streamer is not None:
        if beams > 1:
            raise ValueError(f"streamer given with num_beams={beams}, expected one beam: omit one of the two")
        if not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
            raise TypeError(f"streamer is {streamer!r}, expected an object with put(tokens) and end()")
        streamer.put(prompt_BL.cpu())
        given = Functions(given.processors, (*given.criteria, Streaming(streamer)))
    return given


@dataclass(frozen=True)
class AllowedTokens:
    """Processor that bans all tokens but those that a function of (row, its tokens) returns."""

    function: AllowedTokensFunction
    beams: int

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Return the scores, minus infinity for the other tokens."""
        banned_RV = torch.ones_like(scores_RV, dtype=torch.bool)
        for row, tokens_T in enumerate(tokens_RT):
            found = list(self.function(row // self.beams, tokens_T))
            if not found:
                raise ValueError(
                    f"prefix_allowed_tokens_fn returned no token for row {row // self.beams}, expected at least one: "
                    "return the end token where a text must end"
                )
            banned_RV[row, found] = False
        return scores_RV.masked_fill(banned_RV, -torch.inf)


@dataclass(frozen=True)
class Streaming:
    """Criterion that passes each new token of all rows to a streamer, and ends no text."""

    streamer: Any

    def __call__(self, tokens_RT: Tensor, scores: object) -> bool:
        """Return False."""
        self.streamer.put(tokens_RT[:, -1].cpu())
        return False
