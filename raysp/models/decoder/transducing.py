"""Greedy search of transducers (Graves 2012, arXiv:1211.3711) over the rows of a batch.

A step looks at the next frames of every row for its first token that is not the blank (label looping, Bataev et al.
2024, arXiv:2406.06220), and only the rows that have one go through the prediction network. The state stays on the
device of the frames. With durations (TDT, Xu et al. 2023, arXiv:2304.06795) a token also says at which frame its row
goes on.

Legend: B batch, R rows of a step, T frames, K frames of a step, S steps, J width of the joint network, V
vocabulary, D durations.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raysp.crossing import constant, number
from raysp.devices import is_accelerator

STEPS_A_WAIT = 16
"""Steps on a device before the host asks whether all rows have ended."""
FRAMES_A_STEP = 8
"""Frames that a step on a device looks at. On a CPU a step looks at one: more products would cost time."""
State = tuple[Tensor, ...]
"""State of a prediction network: tensors with the rows on their last axis but one."""


@dataclass(frozen=True)
class Rules:
    """Rules by which a search advances over the frames of a row."""

    blank: int
    vocab_size: int
    durations: tuple[int, ...]
    """Frames of each duration; none: a row goes on by one frame after a blank."""
    max_symbols: int
    """Tokens at one frame after which its row goes on by one frame."""


class Transducer(Protocol):
    """The networks of a transducer except its encoder."""

    def predict(self, tokens_R: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return predicted_RJ for the next tokens after a state, and the new state; None: the first tokens."""

    def join(self, frames_RKJ: Tensor, predicted_RJ: Tensor) -> Tensor:
        """Return logits (R, K, V + D)."""


@dataclass(frozen=True)
class Path:
    """Steps of a search; a step without a token has the blank, also those after a row's end."""

    tokens_BS: Tensor
    frames_BS: Tensor
    """Frame of each token."""
    spans_BS: Tensor
    """Frames from the token's to the frame with which the row continues."""
    scores_BS: Tensor
    """Log-probability of each token among all tokens, float32."""


def search(
    model: Transducer,
    frames_BTJ: Tensor,
    num_frames_B: Tensor,
    rules: Rules,
    *,
    frames_a_step: int | None = None,
) -> Path:
    """Return the most probable token of each step; a row does not depend on other rows.

    Args:
        model: Prediction network and joint network.
        frames_BTJ: Projected frames of the encoder, at least one.
        num_frames_B: Frames of each row.
        rules: Rules by which the search goes from frame to frame.
        frames_a_step: K; with 1, each blank is a step. None: the number that is fast on the device.
    """
    state = _Search(model, frames_BTJ, num_frames_B, rules, frames_a_step)
    while state.goes_on():
        for _ in range(STEPS_A_WAIT if state.on_device else 1):
            state.step()
    return state.path()


class _Search:
    """State of a search. On a CPU rows that have ended leave it; on a device shapes stay, and no step waits."""

    def __init__(
        self, model: Transducer, frames_BTJ: Tensor, num_frames_B: Tensor, rules: Rules, block: int | None
    ) -> None:
        self.model, self.rules, self.frames_BTJ = model, rules, frames_BTJ
        self.on_device = is_accelerator(frames_BTJ.device)
        self.block = block or (FRAMES_A_STEP if self.on_device else 1)
        self.rows_R = torch.arange(len(frames_BTJ), device=frames_BTJ.device)
        self.ends_R = num_frames_B.to(frames_BTJ.device)
        self.at_R, self.symbols_R = torch.zeros_like(self.rows_R), torch.zeros_like(self.rows_R)
        self.predicted_RJ, self.state = model.predict(torch.full_like(self.rows_R, rules.blank), None)
        self.steps: list[tuple[Tensor, ...]] = []

    def goes_on(self) -> bool:
        """Return whether a row has not ended; the host waits for it."""
        is_active_R = self.at_R < self.ends_R
        if self.on_device:
            return bool(number(is_active_R.any()))
        self._keep(is_active_R.nonzero()[:, 0])
        return len(self.rows_R) > 0

    def _keep(self, kept: Tensor) -> None:
        """Leave out all other rows."""
        if len(kept) == len(self.rows_R):
            return
        self.rows_R, self.ends_R, self.at_R = self.rows_R[kept], self.ends_R[kept], self.at_R[kept]
        self.symbols_R, self.predicted_RJ = self.symbols_R[kept], self.predicted_RJ[kept]
        self.state = tuple(tensor[..., kept, :] for tensor in self.state)

    def step(self) -> None:
        """Look for the next token of each row among the frames of a step."""
        logits_RKV, tokens_RK, spans_RK = self._seen()
        place_R = self._place_of_token(tokens_RK, spans_RK)
        inside_R1 = place_R.clamp(max=self.block - 1)[:, None]
        token_R, span_R = tokens_RK.gather(1, inside_R1)[:, 0], spans_RK.gather(1, inside_R1)[:, 0]
        frame_R = self.at_R + place_R
        has_token_R = (place_R < self.block) & (frame_R < self.ends_R)
        span_R = torch.where(has_token_R, self._forced(place_R, span_R), 0)
        self.steps.append(
            (
                self.rows_R,
                torch.where(has_token_R, token_R, self.rules.blank),
                frame_R,
                torch.where(has_token_R, span_R, torch.where(self.at_R < self.ends_R, place_R, 0)),
                torch.where(has_token_R, _log_probs(logits_RKV, inside_R1, token_R), 0.0),
            )
        )
        self.symbols_R = torch.where(has_token_R & (span_R == 0), torch.where(place_R == 0, self.symbols_R, 0) + 1, 0)
        self.at_R = torch.minimum(frame_R + span_R, self.ends_R)
        self._predict(token_R, has_token_R)

    def _seen(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of tokens (R, K, V), tokens and spans (R, K) at the next K frames of each row."""
        rules, device = self.rules, self.at_R.device
        frames_RK = self.at_R[:, None] + torch.arange(self.block, device=device)
        frames_RK = frames_RK.clamp(max=self.frames_BTJ.shape[1] - 1)
        logits_RKV = self.model.join(self.frames_BTJ[self.rows_R[:, None], frames_RK], self.predicted_RJ)
        tokens_RK = logits_RKV[..., : rules.vocab_size].argmax(-1)
        is_blank_RK = tokens_RK == rules.blank
        if not rules.durations:
            return logits_RKV, tokens_RK, is_blank_RK.long()
        spans_RK = constant(rules.durations, device)[logits_RKV[..., rules.vocab_size :].argmax(-1)]
        return logits_RKV[..., : rules.vocab_size], tokens_RK, spans_RK.clamp(min=is_blank_RK.long())

    def _place_of_token(self, tokens_RK: Tensor, spans_RK: Tensor) -> Tensor:
        """Return the frames from the start of a step to the first token: K or more without a token.

        Each blank leads to another frame. Following these ways twice as far each time takes log K lookups.
        """
        reach = self.block + max(self.rules.durations, default=1)
        places_M = torch.arange(reach, device=tokens_RK.device)
        leads_RK = places_M[: self.block] + torch.where(tokens_RK == self.rules.blank, spans_RK, 0)
        if self.block == 1:
            return leads_RK[:, 0]
        leads_RM = torch.cat([leads_RK, places_M[self.block :].expand(len(leads_RK), -1)], dim=1)
        for _ in range((self.block - 1).bit_length()):
            leads_RM = leads_RM.gather(1, leads_RM)
        return leads_RM[:, 0]

    def _forced(self, place_R: Tensor, span_R: Tensor) -> Tensor:
        """Return the spans of tokens, one frame for the last token that a frame may have."""
        symbols_R = torch.where(place_R == 0, self.symbols_R, 0) + 1
        return torch.where(symbols_R >= self.rules.max_symbols, span_R.clamp(min=1), span_R)

    def _predict(self, token_R: Tensor, has_token_R: Tensor) -> None:
        """Let the rows with a new token go through the prediction network."""
        if self.on_device:  # all rows; rows without a new token keep their state
            predicted_RJ, state = self.model.predict(token_R, self.state)
            self.predicted_RJ = torch.where(has_token_R[:, None], predicted_RJ, self.predicted_RJ)
            pairs = zip(state, self.state, strict=True)
            self.state = tuple(torch.where(has_token_R[:, None], new, old) for new, old in pairs)
            return
        new = has_token_R.nonzero()[:, 0]
        if len(new):
            predicted_RJ, state = self.model.predict(token_R[new], tuple(tensor[..., new, :] for tensor in self.state))
            self.predicted_RJ = self.predicted_RJ.index_copy(0, new, predicted_RJ)
            pairs = zip(self.state, state, strict=True)
            self.state = tuple(old.index_copy(old.ndim - 2, new, tensor) for old, tensor in pairs)

    def path(self) -> Path:
        """Return the steps of all rows."""
        batch, num_steps = len(self.frames_BTJ), len(self.steps)
        blank_BS = self.frames_BTJ.new_full((batch, num_steps), self.rules.blank, dtype=torch.int64)
        zero_BS, score_BS = torch.zeros_like(blank_BS), torch.zeros_like(blank_BS, dtype=torch.float32)
        if not num_steps:
            return Path(blank_BS, zero_BS, zero_BS, score_BS)
        rows, *values = (torch.cat(parts) for parts in zip(*self.steps, strict=True))
        steps = torch.cat([torch.full_like(step[0], place) for place, step in enumerate(self.steps)])
        filled = (blank_BS, zero_BS, zero_BS, score_BS)
        return Path(*(all_BS.index_put((rows, steps), part) for all_BS, part in zip(filled, values, strict=True)))


def _log_probs(logits_RKV: Tensor, inside_R1: Tensor, token_R: Tensor) -> Tensor:
    """Return the log softmax of tokens (R,) at places of a step, in float32."""
    rows_R1 = torch.arange(len(token_R), device=token_R.device)[:, None]
    logits_RV = logits_RKV[rows_R1, inside_R1][:, 0].float()
    return logits_RV.gather(1, token_R[:, None])[:, 0] - logits_RV.logsumexp(-1)
