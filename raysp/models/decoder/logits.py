"""Changes of the scores of the next token, as options of generation set them.

A change takes earlier tokens (R, T) and scores (R, V) and returns scores. It may modify its inputs.

Legend: R rows (beams included), T earlier tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.crossing import constant
from raysp.models.decoder.generation_config import Settings

NEVER = float("-inf")


class Change(Protocol):
    """A change of scores."""

    @property
    def needs_log_probs(self) -> bool:
        """Whether the change expects log-probabilities, which beam search scores by."""

    def applies(self, length: int) -> bool:
        """Return whether it has an effect after this number of tokens."""

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Return the changed scores."""


class _Always:
    """A change of log-probabilities at any length."""

    needs_log_probs = True

    def applies(self, length: int) -> bool:
        """Return True."""
        return True


class _Ban(_Always):
    """A change that only bans tokens."""

    needs_log_probs = False


@dataclass(frozen=True)
class RepetitionPenalty(_Always):
    """Make earlier tokens less likely (Keskar et al. 2019, section 4.1)."""

    penalty: float
    num_padding: Tensor | None = None
    """(B,) padding tokens on the left of each row of the prompt."""

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Divide positive scores of earlier tokens, multiply negative scores."""
        if self.num_padding is not None:
            places_T = torch.arange(tokens_RT.shape[1], device=tokens_RT.device)
            padding_R = self.num_padding.repeat_interleave(len(tokens_RT) // len(self.num_padding))
            tokens_RT = tokens_RT.masked_fill(places_T < padding_R[:, None], scores_RV.shape[1])
            # Padding counts as a token beyond the vocabulary, whose column is dropped.
            return self._penalised(tokens_RT, F.pad(scores_RV, (0, 1)))[:, :-1]
        return self._penalised(tokens_RT, scores_RV)

    def _penalised(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        own_RT = scores_RV.gather(1, tokens_RT)
        changed_RT = torch.where(own_RT < 0, own_RT * self.penalty, own_RT / self.penalty)
        return scores_RV.scatter(1, tokens_RT, changed_RT)


@dataclass(frozen=True)
class NoRepeatedNgrams(_Ban):
    """Ban repeated sequences of `size` tokens."""

    size: int

    def applies(self, length: int) -> bool:
        """Return whether the text has at least `size` tokens."""
        return length >= self.size

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Ban tokens that followed an earlier occurrence of the last tokens."""
        windows_RWN = tokens_RT.unfold(1, self.size, 1)
        last_RN = tokens_RT[:, tokens_RT.shape[1] + 1 - self.size :]
        matches_RW = (windows_RWN[..., :-1] == last_RN[:, None]).all(-1)
        rows, places = matches_RW.nonzero(as_tuple=True)
        scores_RV[rows, windows_RWN[rows, places, -1]] = NEVER
        return scores_RV


@dataclass(frozen=True)
class NoBadWords(_Ban):
    """Ban sequences of tokens, as `bad_words_ids` lists them."""

    words: tuple[tuple[int, ...], ...]

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Ban the last token of each word whose other tokens end the text."""
        for *before, last in self.words:
            if not before:
                scores_RV[:, last] = NEVER
            elif len(before) <= tokens_RT.shape[1]:
                prefix = constant(tuple(before), tokens_RT.device)
                scores_RV[(tokens_RT[:, -len(before) :] == prefix).all(-1), last] = NEVER
        return scores_RV


@dataclass(frozen=True)
class Suppress(_Ban):
    """Ban these tokens while the text has at least `start` and fewer than `stop` tokens."""

    ids: Tensor
    start: int = 0
    stop: int | None = None

    def applies(self, length: int) -> bool:
        """Return whether the text has at least `start` and fewer than `stop` tokens."""
        return self.start <= length and (self.stop is None or length < self.stop)

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Ban the tokens."""
        return scores_RV.index_fill_(1, self.ids, NEVER)


@dataclass(frozen=True)
class Force(_Always):
    """Force one of these tokens when the text has `length` tokens."""

    ids: Tensor
    length: int

    def applies(self, length: int) -> bool:
        """Return whether the text has exactly `length` tokens."""
        return length == self.length

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Ban all other tokens."""
        return scores_RV.fill_(NEVER).index_fill_(1, self.ids, 0.0)


@dataclass(frozen=True)
class Temperature(_Always):
    """Divide scores by a temperature."""

    temperature: float

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Sharpen the distribution below 1, flatten it above."""
        return scores_RV.div_(self.temperature)


@dataclass(frozen=True)
class TopK(_Ban):
    """Keep the best tokens (Fan et al. 2018)."""

    count: int

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Ban tokens that score below the last of them."""
        worst_R1 = scores_RV.topk(min(self.count, scores_RV.shape[1])).values[:, -1:]
        return scores_RV.masked_fill_(scores_RV < worst_R1, NEVER)


@dataclass(frozen=True)
class TopP(_Ban):
    """Keep the best tokens up to this total probability (Holtzman et al. 2020), and at least `at_least`."""

    share: float
    at_least: int

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Ban the other tokens."""
        ordered_RV, places_RV = scores_RV.sort(descending=False)
        # From the least likely up, as in transformers: from the top down the sums round to another last token.
        banned_RV = ordered_RV.softmax(-1).cumsum(-1) <= 1 - self.share
        banned_RV[:, -self.at_least :] = False
        return scores_RV.masked_fill_(banned_RV.scatter(1, places_RV, banned_RV), NEVER)


@dataclass(frozen=True)
class MinP(_Ban):
    """Keep tokens of at least this share of the best one's probability (Nguyen et al. 2024), and `at_least`."""

    share: float
    at_least: int

    def __call__(self, tokens_RT: Tensor, scores_RV: Tensor) -> Tensor:
        """Ban the other tokens."""
        probs_RV = scores_RV.softmax(-1)
        banned_RV = probs_RV < self.share * probs_RV.amax(-1, keepdim=True)
        best_RN = scores_RV.topk(min(self.at_least, scores_RV.shape[1])).indices
        return scores_RV.masked_fill_(banned_RV.scatter(1, best_RN, False), NEVER)


def changes_of(
    settings: Settings,
    prompt_length: int,
    device: torch.device,
    padding_B: Tensor | None = None,
) -> Sequence[Change]:
    """Return the changes set by options, in the order of transformers."""

    def ids(values: Sequence[int]) -> Tensor:
        return constant(tuple(values), device)

    makers: dict[str, Callable[..., Change]] = {
        "repetition_penalty": lambda penalty: RepetitionPenalty(penalty, padding_B),
        "no_repeated_ngrams": NoRepeatedNgrams,
        "no_bad_words": NoBadWords,
        "suppress": lambda tokens, *places: Suppress(ids(tokens), *places),
        "force": lambda tokens, length: Force(ids(tokens), length),
        "temperature": Temperature,
        "top_k": TopK,
        "top_p": TopP,
        "min_p": MinP,
    }
    return [makers[name](*arguments) for name, arguments in settings.changes(prompt_length)]
